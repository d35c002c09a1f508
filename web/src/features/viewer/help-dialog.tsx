/** All shortcuts, from the objects that do what they say. */
import { Kbd, Modal, Text } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import { COMMANDS, TOOLS, windowPresets } from './actions';
import classes from './help-dialog.module.css';
import { keyName } from './key-name';

export function HelpDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const { t } = useTranslation();
  const sections: { title: string; rows: [string, readonly string[]][] }[] = [
    ...(['view', 'measure', 'paint'] as const).map((group) => ({
      title: t(`viewer.group.${group}`),
      rows: TOOLS.filter((one) => one.group === group).map((one): [string, readonly string[]] => [
        t(`viewer.tool.${one.name}`),
        [one.shortcut],
      ]),
    })),
    ...(['slices', 'edit', 'view', 'help'] as const).map((group) => ({
      title: t(`viewer.commands.${group}`),
      rows: COMMANDS.filter((one) => one.group === group).map((one): [string, readonly string[]] => [
        t(`viewer.command.${one.name}`),
        one.shortcuts,
      ]),
    })),
    {
      title: t('viewer.presets'),
      rows: windowPresets('CT').map((one, index): [string, readonly string[]] => [
        t(`viewer.preset.${one.name}`),
        [String(index + 1)],
      ]),
    },
  ];
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      size="xl"
      title={t('viewer.help')}
      closeButtonProps={{ 'aria-label': t('app.close') }}
    >
      <div className={classes.columns} data-testid="help-dialog">
        {sections.map(({ title, rows }) => (
          <section key={title} className={classes.section}>
            <h3 className={classes.title}>{title}</h3>
            {rows.map(([label, shortcuts]) => (
              <div key={label} className={classes.row}>
                <Text size="sm">{label}</Text>
                <span>
                  {shortcuts.map((one) => (
                    <Kbd key={one} size="xs" ml={4}>
                      {keyName(one, t)}
                    </Kbd>
                  ))}
                </span>
              </div>
            ))}
          </section>
        ))}
      </div>
      <Text size="xs" c="dimmed" mt="sm">
        {t('viewer.mouseHelp')}
      </Text>
    </Modal>
  );
}
