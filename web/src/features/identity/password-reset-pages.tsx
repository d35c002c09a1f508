/** Forgotten passwords: ask for a link, and the page that the link opens. */
import { Alert, Anchor, Button, PasswordInput, Stack, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { type FormEvent, type ReactNode, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { askForReset, resetPassword } from '../../api/account';
import { failureText } from '../../components/failure-text';
import { CardPage } from './card-page';

export function ForgotPasswordPage() {
  const { t } = useTranslation();
  const [username, setUsername] = useState('');
  const asking = useMutation({ mutationFn: () => askForReset(username) });
  return (
    <CardPage title={t('reset.askTitle')}>
      <ResetForm
        done={asking.isSuccess ? t('reset.asked') : null}
        error={asking.error}
        pending={asking.isPending}
        submit={t('reset.ask')}
        onSubmit={() => asking.mutate()}
      >
        <TextInput
          label={t('reset.name')}
          required
          autoFocus
          autoComplete="username"
          withAsterisk={false}
          data-testid="reset-name"
          value={username}
          onChange={(event) => setUsername(event.currentTarget.value)}
        />
      </ResetForm>
    </CardPage>
  );
}

export function ResetPasswordPage() {
  const { t } = useTranslation();
  // The token stands in the fragment, which no server's log sees; it is read once, then leaves the address bar.
  const [token] = useState(() => {
    const found = window.location.hash.slice(1);
    window.history.replaceState(window.history.state, '', window.location.pathname);
    return found;
  });
  const [password, setPassword] = useState('');
  const setting = useMutation({ mutationFn: () => resetPassword(token, password) });
  return (
    <CardPage title={t('reset.setTitle')}>
      <ResetForm
        done={setting.isSuccess ? t('reset.done') : null}
        error={setting.error}
        pending={setting.isPending}
        submit={t('reset.set')}
        onSubmit={() => setting.mutate()}
      >
        <PasswordInput
          label={t('profile.newPassword')}
          description={t('identity.passwordRule')}
          required
          autoFocus
          autoComplete="new-password"
          withAsterisk={false}
          data-testid="reset-password"
          value={password}
          onChange={(event) => setPassword(event.currentTarget.value)}
        />
      </ResetForm>
    </CardPage>
  );
}

interface ResetFormProps {
  done: string | null;
  error: Error | null;
  pending: boolean;
  submit: string;
  onSubmit: () => void;
  children: ReactNode;
}

function ResetForm({ done, error, pending, submit, onSubmit, children }: ResetFormProps) {
  const { t } = useTranslation();
  const send = (event: FormEvent) => {
    event.preventDefault();
    onSubmit();
  };
  return (
    <>
      {done !== null ? (
        <Alert color="teal" variant="light" data-testid="reset-done">
          {done}
        </Alert>
      ) : (
        <form onSubmit={send}>
          <Stack gap="md">
            {children}
            {error !== null && (
              <Alert color="red" variant="light" role="alert" data-testid="reset-error">
                {failureText(error, t)}
              </Alert>
            )}
            <Button type="submit" fullWidth loading={pending} data-testid="reset-submit">
              {submit}
            </Button>
          </Stack>
        </form>
      )}
      <Anchor component={Link} to="/sign-in" size="sm">
        {t('signIn.toSignIn')}
      </Anchor>
    </>
  );
}
