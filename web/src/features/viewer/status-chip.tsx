/** Whether everything is with the server: saved, saving, kept here until the network is back, or to be decided. */
import { Button, Text } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useStore } from '../../lib/store';
import { ConflictDialog } from './conflict-dialog';
import type { Reading } from './reading';
import classes from './viewer-page.module.css';

export function StatusChip({ reading }: { reading: Reading }) {
  const { t } = useTranslation();
  const { log, offline, unsafe } = useStore(reading.outbox.state);
  const [opened, setOpened] = useState<string | null>(null);
  const refused = log.filter((one) => one.refused !== undefined);
  const count = log.length;
  const state = unsafe
    ? 'unsafe'
    : refused.length > 0
      ? 'conflict'
      : count === 0
        ? 'saved'
        : offline
          ? 'offline'
          : 'saving';
  const first = refused[0];
  const deciding = log.find((one) => one.id === opened && one.refused !== undefined);
  return (
    <>
      <span className={classes.chip} data-state={state} data-testid="save-state" role="status">
        <span className={classes.dot} />
        {first !== undefined ? (
          <Button
            size="compact-xs"
            variant="light"
            color="red"
            data-testid="open-conflict"
            onClick={() => setOpened(first.id)}
          >
            {t('saving.conflict', { count: refused.length })}
          </Button>
        ) : (
          <Text size="xs">{t(`saving.${state}`, { count })}</Text>
        )}
      </span>
      {deciding !== undefined && (
        <ConflictDialog reading={reading} operation={deciding} onClose={() => setOpened(null)} />
      )}
    </>
  );
}
