/** The tools and commands of the image, from their objects. */
import { ActionIcon, Menu, Tooltip } from '@mantine/core';
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

interface Props {
  context: Context | null;
  modality: string;
  inverted: boolean;
}

const GROUPS: readonly ToolGroup[] = ['view', 'measure', 'paint'];
const NOTHING = new Store<ReadingState | null>(null);

export function Toolbar({ context, modality, inverted }: Props) {
  const { t } = useTranslation();
  const state = useStore<ReadingState | null>(
    (context?.reading.state as Store<ReadingState | null> | undefined) ?? NOTHING,
  );
  const run = (name: string) => context && commandOf(name).run(context);
  const command = (name: string, pressed?: boolean) => (
    <CommandButton command={commandOf(name)} pressed={pressed} onClick={() => run(name)} />
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
      </div>
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

export function CommandButton(props: {
  command: Command;
  pressed?: boolean | undefined;
  disabled?: boolean;
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
        color={props.pressed ? 'teal' : 'gray'}
        aria-label={label}
        aria-pressed={props.pressed}
        disabled={props.disabled ?? false}
        data-testid={command.name}
        onClick={props.onClick}
      >
        {command.icon && <command.icon />}
      </ActionIcon>
    </Tooltip>
  );
}
