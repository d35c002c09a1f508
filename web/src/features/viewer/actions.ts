/** Everything that can be done to the view: one object each, from which toolbar, shortcuts and labels come. */
import type { ComponentType } from 'react';
import { ContrastIcon, PanIcon, ResetIcon, ScrollIcon, ZoomIcon } from '../../components/icons';
import type { StackView, ToolName } from './stack-view';

export interface ToolAction {
  name: ToolName;
  label: string;
  shortcut: string;
  icon: ComponentType;
}

export const TOOL_ACTIONS: readonly ToolAction[] = [
  { name: 'window', label: 'viewer.tool.window', shortcut: 'w', icon: ContrastIcon },
  { name: 'pan', label: 'viewer.tool.pan', shortcut: 'p', icon: PanIcon },
  { name: 'zoom', label: 'viewer.tool.zoom', shortcut: 'z', icon: ZoomIcon },
  { name: 'scroll', label: 'viewer.tool.scroll', shortcut: 's', icon: ScrollIcon },
];

export interface ViewCommand {
  shortcuts: readonly string[];
  run: (view: StackView) => void;
}

const PAGE_OF_SLICES = 10;

export const RESET: ViewCommand & { label: string; icon: ComponentType } = {
  label: 'viewer.tool.reset',
  icon: ResetIcon,
  shortcuts: ['r'],
  run: (view) => view.reset(),
};

export const VIEW_COMMANDS: readonly ViewCommand[] = [
  RESET,
  { shortcuts: ['ArrowDown', 'ArrowRight'], run: (view) => view.step(1) },
  { shortcuts: ['ArrowUp', 'ArrowLeft'], run: (view) => view.step(-1) },
  { shortcuts: ['PageDown'], run: (view) => view.step(PAGE_OF_SLICES) },
  { shortcuts: ['PageUp'], run: (view) => view.step(-PAGE_OF_SLICES) },
  { shortcuts: ['Home'], run: (view) => void view.goTo(0) },
  { shortcuts: ['End'], run: (view) => void view.goTo(Number.MAX_SAFE_INTEGER) },
];

export interface WindowPreset {
  name: 'default' | 'brain' | 'bone' | 'lung' | 'abdomen';
  window: { width: number; center: number } | null;
}

/** In Hounsfield units, hence offered for CT only; other modalities have the window of their header. */
const CT_PRESETS: readonly WindowPreset[] = [
  { name: 'brain', window: { width: 80, center: 40 } },
  { name: 'bone', window: { width: 2000, center: 500 } },
  { name: 'lung', window: { width: 1500, center: -600 } },
  { name: 'abdomen', window: { width: 400, center: 50 } },
];

export function windowPresets(modality: string): WindowPreset[] {
  return [{ name: 'default', window: null }, ...(modality === 'CT' ? CT_PRESETS : [])];
}
