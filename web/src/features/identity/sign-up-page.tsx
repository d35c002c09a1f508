/** Ask for an account; an administrator approves it. */
import { Alert, Anchor, Button, PasswordInput, Stack, Text, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { signUp } from '../../api/account';
import { failureText } from '../../components/failure-text';
import { CardPage } from './card-page';

export function SignUpPage() {
  const { t } = useTranslation();
  const [form, setForm] = useState({ username: '', email: '', display_name: '', password: '' });
  const asking = useMutation({ mutationFn: () => signUp(form) });
  const field = (name: keyof typeof form) => ({
    value: form[name],
    'data-testid': `sign-up-${name}`,
    onChange: (event: { currentTarget: HTMLInputElement }) => {
      const value = event.currentTarget.value;
      setForm((before) => ({ ...before, [name]: value }));
    },
  });
  return (
    <CardPage title={t('signUp.title')}>
      {asking.isSuccess ? (
        <Alert color="teal" variant="light" data-testid="sign-up-done">
          {t('signUp.done')}
        </Alert>
      ) : (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            asking.mutate();
          }}
        >
          <Stack gap="sm">
            <TextInput
              label={t('signIn.username')}
              required
              autoFocus
              autoComplete="username"
              {...field('username')}
            />
            <TextInput label={t('profile.displayName')} autoComplete="name" {...field('display_name')} />
            <TextInput
              label={t('profile.email')}
              type="email"
              required
              autoComplete="email"
              {...field('email')}
            />
            <PasswordInput
              label={t('signIn.password')}
              description={t('identity.passwordRule')}
              required
              autoComplete="new-password"
              {...field('password')}
            />
            {asking.error !== null && (
              <Alert color="red" variant="light" role="alert" data-testid="sign-up-error">
                {failureText(asking.error, t)}
              </Alert>
            )}
            <Button type="submit" fullWidth mt="xs" loading={asking.isPending} data-testid="sign-up-submit">
              {t('signUp.submit')}
            </Button>
            <Text size="xs" c="dimmed">
              {t('signUp.approval')}
            </Text>
          </Stack>
        </form>
      )}
      <Anchor component={Link} to="/sign-in" size="sm">
        {t('signIn.toSignIn')}
      </Anchor>
    </CardPage>
  );
}
