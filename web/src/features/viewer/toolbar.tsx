/** The tools and commands of the image, from their objects, and what the chosen tool can be told. */
import { ActionIcon, Menu, NumberInput, Slider, Tooltip } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import { Store, useStore } from '../../lib/store';
import {
  type Command,
  type Context,
  commandOf,
  TOOLS,
  type Tool,
  type ToolGroup,
  windowPresets,
} from './actions';
import { keyName } from './key-name';
import type { ReadingState } from './reading';
import classes from './stack-panel.module.css';
import type { ViewState } from './stack-view';

interface Props {
  context: Context | null;
  modality: string;
  inverted: boolean;
  window: ViewState['window'];
}

const GROUPS: readonly ToolGroup[] = ['view', 'measure', 'paint'];
const NOTHING = new Store<ReadingState | null>(null);
const STEPS = new Store({ canUndo: false, canRedo: false });

export function Toolbar({ context, modality, inverted, window }: Props) {
  const { t } = useTranslation();
  const state = useStore<ReadingState | null>(
    (context?.reading.state as Store<ReadingState | null> | undefined) ?? NOTHING,
  );
  const steps = useStore(context?.reading.history.state ?? STEPS);
  const run = (name: string) => context && commandOf(name).run(context);
  const command = (name: string, pressed?: boolean, disabled = false) => (
    <CommandButton
      command={commandOf(name)}
      pressed={pressed}
      disabled={disabled}
      onClick={() => run(name)}
    />
  );
  return (
    <div className={classes.toolbar} role="toolbar" aria-label={t('viewer.tools')}>
      {GROUPS.map((group) => (
        <div key={group} className={classes.group}>
          {TOOLS.filter((one) => one.group === group).map((tool) => (
            <ToolButton
              key={tool.name}
              tool={tool}
              chosen={state?.tool === tool.name}
              onChoose={() => context?.reading.state.update({ tool: tool.name })}
            />
          ))}
        </div>
      ))}
      <div className={classes.group}>
        {command('undo', undefined, !steps.canUndo)}
        {command('redo', undefined, !steps.canRedo)}
      </div>
      <div className={classes.group}>
        {command('reset')}
        {command('invert', inverted)}
        {command('cine', state?.playing ?? false)}
        {command('texts', state?.showsTexts ?? true)}
        {command('shapes', state?.showsShapes ?? true)}
        <Menu position="bottom-start">
          <Menu.Target>
            <button type="button" className={classes.presets} data-testid="presets">
              {t('viewer.presets')}
            </button>
          </Menu.Target>
          <Menu.Dropdown>
            {windowPresets(modality).map((preset, index) => (
              <Menu.Item
                key={preset.name}
                rightSection={String(index + 1)}
                onClick={() => context?.view.setWindow(preset.window)}
              >
                {t(`viewer.preset.${preset.name}`)}
              </Menu.Item>
            ))}
          </Menu.Dropdown>
        </Menu>
        {command('help')}
      </div>
      {state !== null && context !== null && <ToolOptions state={state} context={context} window={window} />}
    </div>
  );
}

function ToolButton({ tool, chosen, onChoose }: { tool: Tool; chosen: boolean; onChoose: () => void }) {
  const { t } = useTranslation();
  const label = t('viewer.withKey', { label: t(`viewer.tool.${tool.name}`), key: keyName(tool.shortcut, t) });
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant={chosen ? 'filled' : 'subtle'}
        color={chosen ? 'teal' : 'gray'}
        aria-pressed={chosen}
        aria-label={label}
        data-testid={`tool-${tool.name}`}
        onClick={onChoose}
      >
        <tool.icon />
      </ActionIcon>
    </Tooltip>
  );
}

function CommandButton(props: {
  command: Command;
  pressed: boolean | undefined;
  disabled: boolean;
  onClick: () => void;
}) {
  const { t } = useTranslation();
  const { command } = props;
  const label = t('viewer.withKey', {
    label: t(`viewer.command.${command.name}`),
    key: keyName(command.shortcuts[0] ?? '', t),
  });
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant={props.pressed ? 'light' : 'subtle'}
        color="gray"
        aria-label={label}
        aria-pressed={props.pressed}
        disabled={props.disabled}
        data-testid={command.name}
        onClick={props.onClick}
      >
        {command.icon && <command.icon />}
      </ActionIcon>
    </Tooltip>
  );
}

/** The size of the brush, the range of the threshold. */
function ToolOptions(props: { state: ReadingState; context: Context; window: ViewState['window'] }) {
  const { t } = useTranslation();
  const { state, window } = props;
  const store = props.context.reading.state;
  if (state.tool !== 'brush' && state.tool !== 'eraser' && state.tool !== 'threshold') return null;
  const shown = window ?? { center: 0, width: 0 };
  const range = state.threshold ?? {
    lower: Math.round(shown.center - shown.width / 2),
    upper: Math.round(shown.center + shown.width / 2),
  };
  const bound = (side: 'lower' | 'upper') => (
    <NumberInput
      size="xs"
      className={classes.number}
      aria-label={t(`viewer.threshold.${side}`)}
      data-testid={`threshold-${side}`}
      hideControls
      value={range[side]}
      onChange={(value) =>
        typeof value === 'number' && store.update({ threshold: { ...range, [side]: value } })
      }
    />
  );
  return (
    <div className={classes.options}>
      <span>{t('viewer.brushSize')}</span>
      <Slider
        w={90}
        size="xs"
        min={0.5}
        max={40}
        step={0.5}
        label={null}
        thumbLabel={t('viewer.brushSize')}
        value={state.brushRadius}
        onChange={(brushRadius) => store.update({ brushRadius })}
      />
      {state.tool === 'threshold' && (
        <>
          {bound('lower')}–{bound('upper')}
        </>
      )}
    </div>
  );
}
