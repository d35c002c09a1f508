/** The devices on which one is signed in. */
import { Badge, Button, Group, Text } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { endOtherSessions, endSession, listSessions } from '../../api/account';
import { Section } from '../../components/section';
import classes from '../../components/settings-page.module.css';
import { useDay } from '../../lib/day';
import { deviceName } from './device-name';

export function SessionsSection() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const day = useDay();
  const sessions = useQuery({ queryKey: ['sessions'], queryFn: listSessions });
  const reload = () => client.invalidateQueries({ queryKey: ['sessions'] });
  const ending = useMutation({ mutationFn: endSession, onSuccess: reload });
  const endingOthers = useMutation({ mutationFn: endOtherSessions, onSuccess: reload });
  const others = sessions.data?.some((session) => !session.current) ?? false;
  return (
    <Section
      title={t('sessions.title')}
      hint={t('sessions.hint')}
      error={sessions.error ?? ending.error ?? endingOthers.error}
      action={
        others && (
          <Button
            size="compact-sm"
            variant="default"
            loading={endingOthers.isPending}
            data-testid="end-other-sessions"
            onClick={() => endingOthers.mutate()}
          >
            {t('sessions.endOthers')}
          </Button>
        )
      }
    >
      {sessions.data?.map((session) => (
        <div key={session.id} className={classes.row} data-testid="session">
          <div className={classes.rowText}>
            <Group gap={8}>
              <Text size="sm" fw={500} title={session.client}>
                {deviceName(session.client) || t('sessions.unknown')}
              </Text>
              {session.current && (
                <Badge size="sm" variant="light" tt="none">
                  {t('sessions.current')}
                </Badge>
              )}
            </Group>
            <Text size="xs" c="dimmed">
              {session.address} · {t('identity.used', { day: day(session.last_used_at) })}
            </Text>
          </div>
          {!session.current && (
            <Button size="compact-sm" variant="default" onClick={() => ending.mutate(session.id)}>
              {t('sessions.end')}
            </Button>
          )}
        </div>
      ))}
    </Section>
  );
}
