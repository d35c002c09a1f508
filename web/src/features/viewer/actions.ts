/**
 * Everything that can be done in the viewer: one object each, from which toolbar, shortcuts, tooltips and the help come.
 * A tool changes what the left button does; a command does something at once.
 */
import type { ComponentType } from 'react';
import { ContrastIcon, PanIcon, ResetIcon, ScrollIcon, ZoomIcon } from '../../components/icons';
import type { Point } from '../../lib/affine';
import * as icons from './icons';
import type { Reading } from './reading';
import { moved, type ShapeType, within } from './shapes';
import type { EngineTool, StackView } from './stack-view';

export type PaintTool = 'brush' | 'eraser' | 'threshold' | 'fill';
export type ToolName = EngineTool | ShapeType | PaintTool;
export type ToolGroup = 'view' | 'measure' | 'paint';

export interface Tool {
  name: ToolName;
  group: ToolGroup;
  shortcut: string;
  icon: ComponentType;
}

export const TOOLS: readonly Tool[] = [
  { name: 'window', group: 'view', shortcut: 'w', icon: ContrastIcon },
  { name: 'pan', group: 'view', shortcut: 'p', icon: PanIcon },
  { name: 'zoom', group: 'view', shortcut: 'z', icon: ZoomIcon },
  { name: 'scroll', group: 'view', shortcut: 's', icon: ScrollIcon },
  { name: 'length', group: 'measure', shortcut: 'l', icon: icons.LengthIcon },
  { name: 'angle', group: 'measure', shortcut: 'a', icon: icons.AngleIcon },
  { name: 'bidirectional', group: 'measure', shortcut: 'b', icon: icons.BidirectionalIcon },
  { name: 'rectangle', group: 'measure', shortcut: 'c', icon: icons.RectangleIcon },
  { name: 'ellipse', group: 'measure', shortcut: 'e', icon: icons.EllipseIcon },
  { name: 'polygon', group: 'measure', shortcut: 'g', icon: icons.PolygonIcon },
  { name: 'freehand', group: 'measure', shortcut: 'f', icon: icons.FreehandIcon },
  { name: 'arrow', group: 'measure', shortcut: 'n', icon: icons.ArrowIcon },
  { name: 'probe', group: 'measure', shortcut: 'o', icon: icons.ProbeIcon },
  { name: 'brush', group: 'paint', shortcut: 'd', icon: icons.BrushIcon },
  { name: 'eraser', group: 'paint', shortcut: 'x', icon: icons.EraserIcon },
  { name: 'threshold', group: 'paint', shortcut: 'h', icon: icons.ThresholdIcon },
  { name: 'fill', group: 'paint', shortcut: 'k', icon: icons.FillIcon },
];

export function toolOf(name: ToolName): Tool {
  return TOOLS.find((one) => one.name === name) as Tool;
}

export interface Context {
  view: StackView;
  reading: Reading;
  showHelp: () => void;
}

export interface Command {
  name: string;
  group: 'view' | 'slices' | 'edit' | 'help';
  shortcuts: readonly string[];
  icon?: ComponentType;
  run: (context: Context) => void;
}

const PAGE_OF_SLICES = 10;
const ZOOM_STEP = 1.25;
const BRUSH_STEP = 1.25;
const BRUSH_LEAST = 0.5;
const BRUSH_MOST = 100;

const step = (name: string, slices: number, ...shortcuts: string[]): Command => ({
  name,
  group: 'slices',
  shortcuts,
  run: ({ view }) => view.step(slices),
});

/** Moves the chosen annotation by a pixel of its image. */
function nudge(name: string, key: string, by: Point): Command {
  return {
    name,
    group: 'edit',
    shortcuts: [`alt+${key}`],
    run: ({ reading, view }) => {
      const placement = view.placement();
      const chosen = reading.find(reading.state.get().selected ?? '');
      if (chosen?.geometry.space !== 'pixel' || placement === null) return;
      const points = within(
        moved(
          chosen.geometry.points.map(([x, y]): Point => [x ?? 0, y ?? 0]),
          by,
        ),
        placement.columns,
        placement.rows,
      );
      reading.edit(chosen.id, {
        geometry: { ...chosen.geometry, points: points.map(([x, y]) => [x, y]) },
      });
    },
  };
}

export const COMMANDS: readonly Command[] = [
  { name: 'reset', group: 'view', shortcuts: ['r'], icon: ResetIcon, run: ({ view }) => view.reset() },
  {
    name: 'invert',
    group: 'view',
    shortcuts: ['i'],
    icon: icons.InvertIcon,
    run: ({ view }) => view.invert(),
  },
  { name: 'zoomIn', group: 'view', shortcuts: ['+', '='], run: ({ view }) => view.zoomBy(ZOOM_STEP) },
  { name: 'zoomOut', group: 'view', shortcuts: ['-'], run: ({ view }) => view.zoomBy(1 / ZOOM_STEP) },
  {
    name: 'texts',
    group: 'view',
    shortcuts: ['t'],
    icon: icons.TextIcon,
    run: ({ reading: { state } }) => state.update({ showsTexts: !state.get().showsTexts }),
  },
  {
    name: 'shapes',
    group: 'view',
    shortcuts: ['v'],
    icon: icons.ShapesIcon,
    run: ({ reading: { state } }) => state.update({ showsShapes: !state.get().showsShapes }),
  },
  {
    name: 'cine',
    group: 'slices',
    shortcuts: [' '],
    icon: icons.PlayIcon,
    run: ({ reading: { state } }) => state.update({ playing: !state.get().playing }),
  },
  step('next', 1, 'ArrowDown', 'ArrowRight'),
  step('previous', -1, 'ArrowUp', 'ArrowLeft'),
  step('pageDown', PAGE_OF_SLICES, 'PageDown'),
  step('pageUp', -PAGE_OF_SLICES, 'PageUp'),
  { name: 'first', group: 'slices', shortcuts: ['Home'], run: ({ view }) => void view.goTo(0) },
  {
    name: 'last',
    group: 'slices',
    shortcuts: ['End'],
    run: ({ view }) => void view.goTo(Number.MAX_SAFE_INTEGER),
  },
  {
    name: 'undo',
    group: 'edit',
    shortcuts: ['mod+z'],
    icon: icons.UndoIcon,
    run: ({ reading }) => reading.history.undo(),
  },
  {
    name: 'redo',
    group: 'edit',
    shortcuts: ['mod+shift+z', 'mod+y'],
    icon: icons.RedoIcon,
    run: ({ reading }) => reading.history.redo(),
  },
  {
    name: 'delete',
    group: 'edit',
    shortcuts: ['Delete', 'Backspace'],
    run: ({ reading }) => {
      const { selected } = reading.state.get();
      if (selected !== null) reading.remove(selected);
    },
  },
  nudge('left', 'ArrowLeft', [-1, 0]),
  nudge('right', 'ArrowRight', [1, 0]),
  nudge('up', 'ArrowUp', [0, -1]),
  nudge('down', 'ArrowDown', [0, 1]),
  {
    name: 'smaller',
    group: 'edit',
    shortcuts: ['['],
    run: ({ reading }) => resizeBrush(reading, 1 / BRUSH_STEP),
  },
  { name: 'larger', group: 'edit', shortcuts: [']'], run: ({ reading }) => resizeBrush(reading, BRUSH_STEP) },
  { name: 'help', group: 'help', shortcuts: ['?'], icon: icons.HelpIcon, run: ({ showHelp }) => showHelp() },
];

export function commandOf(name: string): Command {
  return COMMANDS.find((one) => one.name === name) as Command;
}

export function resizeBrush({ state }: Reading, factor: number): void {
  const radius = state.get().brushRadius * factor;
  state.update({ brushRadius: Math.min(Math.max(radius, BRUSH_LEAST), BRUSH_MOST) });
}

export interface WindowPreset {
  name: 'default' | 'brain' | 'bone' | 'lung' | 'abdomen' | 'mediastinum';
  window: { width: number; center: number } | null;
}

/** In Hounsfield units, hence offered for CT only; other modalities have the window of their header. */
const CT_PRESETS: readonly WindowPreset[] = [
  { name: 'brain', window: { width: 80, center: 40 } },
  { name: 'bone', window: { width: 2000, center: 500 } },
  { name: 'lung', window: { width: 1500, center: -600 } },
  { name: 'abdomen', window: { width: 400, center: 50 } },
  { name: 'mediastinum', window: { width: 350, center: 40 } },
];

/** The number keys choose them in this order, from 1. */
export function windowPresets(modality: string): WindowPreset[] {
  return [{ name: 'default', window: null }, ...(modality === 'CT' ? CT_PRESETS : [])];
}
