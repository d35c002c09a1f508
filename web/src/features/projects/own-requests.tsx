/** What one asked for: access to projects, with the answer. */
import { Badge, Button, Text } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { getProfile } from '../../api/account';
import { listRequests, withdrawRequest } from '../../api/projects';
import { Section } from '../../components/section';
import { useDate } from '../../lib/day';
import classes from './projects.module.css';

export const STATE_COLORS: Record<string, string> = { pending: 'yellow', approved: 'teal', denied: 'red' };

export function OwnRequests() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const date = useDate();
  const profile = useQuery({ queryKey: ['profile'], queryFn: getProfile });
  const requests = useQuery({ queryKey: ['access-requests'], queryFn: listRequests });
  const withdrawing = useMutation({
    mutationFn: withdrawRequest,
    onSuccess: () => client.invalidateQueries({ queryKey: ['access-requests'] }),
  });
  const own = requests.data?.filter((one) => one.user_id === profile.data?.user.id) ?? [];
  if (own.length === 0 && requests.error === null) return null;
  return (
    <Section title={t('requests.own')} error={requests.error ?? withdrawing.error}>
      {own.map((one) => (
        <div key={one.id} className={classes.line} data-testid="own-request">
          <div className={classes.text}>
            <Text size="sm">{one.reason}</Text>
            <Text size="xs" c="dimmed">
              {[t(`requests.scopes.${one.scope}`), date(one.created_at), one.note]
                .filter(Boolean)
                .join(' · ')}
            </Text>
          </div>
          <span className={classes.words}>
            <Badge variant="light" tt="none" color={STATE_COLORS[one.state] ?? 'gray'}>
              {t(`requests.states.${one.state}`)}
            </Badge>
            {one.state === 'pending' && (
              <Button size="compact-xs" variant="default" onClick={() => withdrawing.mutate(one.id)}>
                {t('requests.withdraw')}
              </Button>
            )}
          </span>
        </div>
      ))}
    </Section>
  );
}
