/** Who asks for access to the project, and the answers that were given. */
import { Badge, Button, Loader, Text, TextInput } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type AccessRequest, decideRequest, listRequests } from '../../api/projects';
import { Section } from '../../components/section';
import { endOfDay, useDate } from '../../lib/day';
import type { TabProps } from './access';
import { STATE_COLORS } from './own-requests';
import classes from './projects.module.css';
import { RoleSelect } from './role-select';

/** The role that each scope stands for, as the server has it; another one can be chosen. */
const SCOPE_ROLES: Record<string, string> = {
  full: 'annotator',
  limited: 'blinded_reader',
  read_only: 'viewer',
};

export function RequestsTab(tab: TabProps) {
  const { t } = useTranslation();
  const date = useDate();
  const requests = useQuery({ queryKey: ['access-requests'], queryFn: listRequests });
  const here = requests.data?.filter((one) => one.project_id === tab.project.id) ?? [];
  const open = here.filter((one) => one.state === 'pending');
  const decided = here.filter((one) => one.state !== 'pending');
  return (
    <>
      <Section title={t('requests.open', { count: open.length })} error={requests.error}>
        {requests.isLoading && <Loader size="sm" mt="sm" aria-label={t('requests.loading')} />}
        {requests.isSuccess && open.length === 0 && (
          <Text size="sm" c="dimmed" mt="xs">
            {t('requests.none')}
          </Text>
        )}
        {open.map((one) => (
          <OpenRequest key={one.id} request={one} {...tab} />
        ))}
      </Section>
      {decided.length > 0 && (
        <Section title={t('requests.decided')}>
          {decided.map((one) => (
            <div key={one.id} className={classes.line}>
              <div className={classes.text}>
                <Text size="sm">
                  <b>{one.username}</b> · {one.reason}
                </Text>
                <Text size="xs" c="dimmed">
                  {[t(`requests.scopes.${one.scope}`), date(one.decided_at ?? one.created_at), one.note]
                    .filter(Boolean)
                    .join(' · ')}
                </Text>
              </div>
              <Badge variant="light" tt="none" color={STATE_COLORS[one.state] ?? 'gray'}>
                {t(`requests.states.${one.state}`)}
              </Badge>
            </div>
          ))}
        </Section>
      )}
    </>
  );
}

function OpenRequest({ request, project, access }: TabProps & { request: AccessRequest }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const date = useDate();
  const [role, setRole] = useState(SCOPE_ROLES[request.scope] ?? 'viewer');
  const [until, setUntil] = useState(request.until?.slice(0, 10) ?? '');
  const [note, setNote] = useState('');
  const deciding = useMutation({
    mutationFn: (decision: 'approve' | 'deny') =>
      decideRequest(request.id, decision, { note, role, expires_at: endOfDay(until) }),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ['access-requests'] });
      await client.invalidateQueries({ queryKey: ['members', project.id] });
    },
  });
  return (
    <div className={classes.line} data-testid="request">
      <div className={classes.text}>
        <Text size="sm">
          <b>{request.username}</b> · {request.reason}
        </Text>
        <Text size="xs" c="dimmed">
          {[
            t(`requests.scopes.${request.scope}`),
            date(request.created_at),
            request.until && t('members.untilDay', { day: date(request.until) }),
          ]
            .filter(Boolean)
            .join(' · ')}
        </Text>
      </div>
      <div className={classes.form}>
        <RoleSelect access={access} label={t('members.role')} value={role} onChange={setRole} />
        <TextInput
          type="date"
          label={t('members.until')}
          w={150}
          value={until}
          onChange={(event) => setUntil(event.currentTarget.value)}
        />
        <TextInput
          label={t('requests.note')}
          w={180}
          value={note}
          data-testid="request-note"
          onChange={(event) => setNote(event.currentTarget.value)}
        />
        <Button
          loading={deciding.isPending}
          data-testid="approve-request"
          onClick={() => deciding.mutate('approve')}
        >
          {t('requests.approve')}
        </Button>
        <Button
          variant="default"
          disabled={deciding.isPending || !note.trim()}
          title={note.trim() ? undefined : t('requests.denyNeedsNote')}
          data-testid="deny-request"
          onClick={() => deciding.mutate('deny')}
        >
          {t('requests.deny')}
        </Button>
      </div>
      {deciding.error && (
        <Text size="sm" c="red" role="alert">
          {deciding.error.message}
        </Text>
      )}
    </div>
  );
}
