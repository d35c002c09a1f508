/** One's own account: name, password, second factors, devices, API keys. */
import { Button, Group, Loader, PasswordInput, Stack, TextInput, Title } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import {
  changePassword,
  getProfile,
  getSignInWays,
  linkOidc,
  type Profile,
  updateProfile,
} from '../../api/account';
import { FailureNotice } from '../../components/failure-notice';
import { Section } from '../../components/section';
import classes from '../../components/settings-page.module.css';
import { useStepUp } from '../../components/step-up';
import { ApiKeysSection } from './api-keys-section';
import { SecondFactorSection } from './second-factor-section';
import { SessionsSection } from './sessions-section';

export function ProfilePage() {
  const { t } = useTranslation();
  const profile = useQuery({ queryKey: ['profile'], queryFn: getProfile });
  const { fresh, dialog } = useStepUp();
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <Title order={1} size="h3">
          {t('profile.title')}
        </Title>
        {profile.isLoading && <Loader size="sm" aria-label={t('profile.loading')} />}
        {profile.error !== null && (
          <FailureNotice
            title={t('profile.failed')}
            error={profile.error}
            onRetry={() => void profile.refetch()}
          />
        )}
        {profile.data && (
          <>
            <AccountSection profile={profile.data} fresh={fresh} />
            {profile.data.has_password && <PasswordSection />}
            <SecondFactorSection profile={profile.data} fresh={fresh} />
            <SessionsSection />
            <ApiKeysSection fresh={fresh} />
          </>
        )}
        {dialog}
      </div>
    </div>
  );
}

interface FreshProps {
  profile: Profile;
  fresh: <T>(call: () => Promise<T>) => Promise<T>;
}

function AccountSection({ profile, fresh }: FreshProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [displayName, setDisplayName] = useState(profile.user.display_name);
  const [email, setEmail] = useState(profile.user.email ?? '');
  const ways = useQuery({ queryKey: ['sign-in-ways'], queryFn: getSignInWays });
  const saving = useMutation({
    mutationFn: () =>
      fresh(() =>
        updateProfile({
          display_name: displayName,
          ...(email && email !== profile.user.email ? { email } : {}),
        }),
      ),
    onSuccess: () => client.invalidateQueries({ queryKey: ['profile'] }),
  });
  const linking = useMutation({
    mutationFn: () => fresh(linkOidc),
    onSuccess: ({ redirect_url }) => window.location.assign(redirect_url),
  });
  const changed = displayName !== profile.user.display_name || email !== (profile.user.email ?? '');
  return (
    <Section title={profile.user.username} error={saving.error ?? linking.error}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          saving.mutate();
        }}
      >
        <Stack gap="sm" mt="sm">
          <Group grow align="flex-start">
            <TextInput
              label={t('profile.displayName')}
              value={displayName}
              data-testid="display-name"
              onChange={(event) => setDisplayName(event.currentTarget.value)}
            />
            <TextInput
              label={t('profile.email')}
              type="email"
              value={email}
              data-testid="email"
              onChange={(event) => setEmail(event.currentTarget.value)}
            />
          </Group>
          <Group justify="flex-end">
            {ways.data?.oidc && !profile.linked && (
              <Button variant="default" loading={linking.isPending} onClick={() => linking.mutate()}>
                {t('profile.link', { name: ways.data.oidc })}
              </Button>
            )}
            <Button type="submit" disabled={!changed} loading={saving.isPending} data-testid="save-profile">
              {t('profile.save')}
            </Button>
          </Group>
        </Stack>
      </form>
    </Section>
  );
}

function PasswordSection() {
  const { t } = useTranslation();
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  const changing = useMutation({
    mutationFn: () => changePassword(current, next),
    onSuccess: () => {
      setCurrent('');
      setNext('');
    },
  });
  return (
    <Section
      title={t('profile.password')}
      hint={changing.isSuccess ? t('profile.passwordChanged') : t('profile.passwordHint')}
      error={changing.error}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          changing.mutate();
        }}
      >
        <Group grow align="flex-start" mt="sm">
          <PasswordInput
            label={t('profile.currentPassword')}
            autoComplete="current-password"
            value={current}
            data-testid="current-password"
            onChange={(event) => setCurrent(event.currentTarget.value)}
          />
          <PasswordInput
            label={t('profile.newPassword')}
            autoComplete="new-password"
            value={next}
            data-testid="new-password"
            onChange={(event) => setNext(event.currentTarget.value)}
          />
        </Group>
        <Group justify="flex-end" mt="sm">
          <Button
            type="submit"
            disabled={!current || !next}
            loading={changing.isPending}
            data-testid="change-password"
          >
            {t('profile.changePassword')}
          </Button>
        </Group>
      </form>
    </Section>
  );
}
