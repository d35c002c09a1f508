/** One's own API keys: issued, shown once, revoked. */
import { Alert, Button, Code, CopyButton, Group, Select, Text, TextInput } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { issueApiKey, listApiKeys, revokeApiKey } from '../../api/account';
import { Section } from '../../components/section';
import classes from '../../components/settings-page.module.css';
import { useDay } from '../../lib/day';

/** What a key may do, from narrow to wide; the last has no scopes: all that its owner may do. */
const REACHES: Record<string, string[] | undefined> = {
  read: ['read'],
  write: ['read', 'write'],
  all: undefined,
};
const DAY_MS = 24 * 3600 * 1000;
const LIFETIMES_DAYS = ['30', '90', '365', ''];

export function ApiKeysSection({ fresh }: { fresh: <T>(call: () => Promise<T>) => Promise<T> }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const day = useDay();
  const keys = useQuery({ queryKey: ['api-keys'], queryFn: listApiKeys });
  const [name, setName] = useState('');
  const [reach, setReach] = useState('read');
  const [days, setDays] = useState('90');
  const reload = () => client.invalidateQueries({ queryKey: ['api-keys'] });
  const issuing = useMutation({
    mutationFn: () => {
      const scopes = REACHES[reach];
      const expiresAt = days && new Date(Date.now() + Number(days) * DAY_MS).toISOString();
      return fresh(() =>
        issueApiKey({ name, ...(scopes && { scopes }), ...(expiresAt && { expires_at: expiresAt }) }),
      );
    },
    onSuccess: () => {
      setName('');
      return reload();
    },
  });
  const revoking = useMutation({ mutationFn: revokeApiKey, onSuccess: reload });
  return (
    <Section
      title={t('apiKeys.title')}
      hint={t('apiKeys.hint')}
      error={keys.error ?? issuing.error ?? revoking.error}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          issuing.mutate();
        }}
      >
        <Group align="flex-end" mt="sm" gap="sm">
          <TextInput
            label={t('apiKeys.name')}
            required
            withAsterisk={false}
            flex={1}
            value={name}
            data-testid="api-key-name"
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <Select
            label={t('apiKeys.reach')}
            w={150}
            allowDeselect={false}
            value={reach}
            onChange={(value) => setReach(value ?? 'read')}
            data={Object.keys(REACHES).map((value) => ({ value, label: t(`apiKeys.reaches.${value}`) }))}
          />
          <Select
            label={t('apiKeys.lifetime')}
            w={130}
            allowDeselect={false}
            value={days}
            onChange={(value) => setDays(value ?? '')}
            data={LIFETIMES_DAYS.map((value) => ({
              value,
              label: value ? t('apiKeys.days', { count: Number(value) }) : t('apiKeys.forever'),
            }))}
          />
          <Button type="submit" disabled={!name} loading={issuing.isPending} data-testid="issue-api-key">
            {t('apiKeys.issue')}
          </Button>
        </Group>
      </form>
      {issuing.data && (
        <Alert color="yellow" variant="light" my="sm" title={t('apiKeys.once')}>
          <Group gap="sm">
            <Code className={classes.secret} data-testid="api-key">
              {issuing.data.key}
            </Code>
            <CopyButton value={issuing.data.key}>
              {({ copied, copy }) => (
                <Button size="compact-sm" variant="default" onClick={copy}>
                  {t(copied ? 'identity.copied' : 'identity.copy')}
                </Button>
              )}
            </CopyButton>
          </Group>
        </Alert>
      )}
      {keys.data?.map((key) => (
        <div key={key.id} className={classes.row} data-testid="api-key-row">
          <div className={classes.rowText}>
            <Text size="sm" fw={500}>
              {key.name}{' '}
              <Text span size="xs" c="dimmed" className={classes.secret}>
                annotomy_{key.handle}_…
              </Text>
            </Text>
            <Text size="xs" c="dimmed">
              {key.scopes === null ? t('apiKeys.reaches.all') : key.scopes.join(', ') || t('apiKeys.nothing')}
              {key.expires_at && ` · ${t('apiKeys.until', { day: day(key.expires_at) })}`}
              {` · ${key.last_used_at ? t('identity.used', { day: day(key.last_used_at) }) : t('apiKeys.unused')}`}
            </Text>
          </div>
          <Button
            size="compact-sm"
            variant="default"
            data-testid="revoke-api-key"
            onClick={() => revoking.mutate(key.id)}
          >
            {t('apiKeys.revoke')}
          </Button>
        </div>
      ))}
    </Section>
  );
}
