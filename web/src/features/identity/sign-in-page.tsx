/** Sign in with username and password. */
import { Alert, Button, Paper, PasswordInput, Stack, Text, TextInput, Title } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { useRouter, useSearch } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { RequestFailed } from '../../api/failure';
import { signIn } from '../../api/session';
import { LanguageSwitch } from '../../components/language-switch';
import classes from './sign-in-page.module.css';

export function SignInPage() {
  const { t } = useTranslation();
  const router = useRouter();
  const { next } = useSearch({ from: '/sign-in' });
  const [username, setUsername] = useState('');
  const [password, setPassword] = useState('');
  const entering = useMutation({
    mutationFn: () => signIn(username, password),
    onSuccess: () => router.history.push(next ?? '/'),
  });
  return (
    <main className={classes.page}>
      <Paper className={classes.card} withBorder shadow="md" p="xl">
        <form
          onSubmit={(event) => {
            event.preventDefault();
            entering.mutate();
          }}
        >
          <Stack gap="md">
            <div className={classes.head}>
              <img src="/favicon.svg" alt="" width={36} height={36} />
              <div>
                <Title order={1} size="h3">
                  Annotomy
                </Title>
                <Text size="sm" c="dimmed">
                  {t('signIn.tagline')}
                </Text>
              </div>
            </div>
            <TextInput
              label={t('signIn.username')}
              autoComplete="username"
              autoFocus
              required
              withAsterisk={false}
              data-testid="username"
              value={username}
              onChange={(event) => setUsername(event.currentTarget.value)}
            />
            <PasswordInput
              label={t('signIn.password')}
              autoComplete="current-password"
              required
              withAsterisk={false}
              data-testid="password"
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
            />
            {entering.error !== null && (
              <Alert color="red" variant="light" role="alert" data-testid="sign-in-error">
                {messageOf(entering.error, t)}
              </Alert>
            )}
            <Button type="submit" loading={entering.isPending} fullWidth data-testid="sign-in">
              {t('signIn.submit')}
            </Button>
          </Stack>
        </form>
      </Paper>
      <LanguageSwitch />
    </main>
  );
}

function messageOf(error: Error, t: (key: string) => string): string {
  if (!(error instanceof RequestFailed)) return t('signIn.unreachable');
  if (error.status === 401) return t('signIn.refused');
  return error.message;
}
