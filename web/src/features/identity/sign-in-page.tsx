/** Sign in: name and password, then a second factor where there is one; or a passkey; or the sign-in service. */
import { Alert, Anchor, Button, Divider, Group, PasswordInput, Stack, TextInput } from '@mantine/core';
import { useMutation, useQuery } from '@tanstack/react-query';
import { Link, useRouter, useSearch } from '@tanstack/react-router';
import { type ReactNode, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { getSignInWays } from '../../api/account';
import { RequestFailed } from '../../api/failure';
import { type SecondFactorChallenge, signIn, signInWithPasskey } from '../../api/session';
import { failureText, problemText } from '../../components/failure-text';
import { answerWithPasskey, passkeysAreKnown } from '../../lib/passkey';
import { CardPage } from './card-page';
import { SecondFactorForm } from './second-factor-form';

export function SignInPage() {
  const router = useRouter();
  const { next, problem } = useSearch({ from: '/sign-in' });
  const [challenge, setChallenge] = useState<SecondFactorChallenge | null>(null);
  const enter = () => router.history.push(next ?? '/');
  return (
    <CardPage>
      {challenge === null ? (
        <PasswordForm onChallenge={setChallenge} onEntered={enter} next={next ?? '/'} problem={problem} />
      ) : (
        <SecondFactorForm challenge={challenge} onEntered={enter} onBack={() => setChallenge(null)} />
      )}
    </CardPage>
  );
}

interface PasswordFormProps {
  next: string;
  problem: string | undefined;
  onChallenge: (challenge: SecondFactorChallenge) => void;
  onEntered: () => void;
}

function PasswordForm({ next, problem, onChallenge, onEntered }: PasswordFormProps) {
  const { t } = useTranslation();
  const [username, setUsername] = useState('');
  const [password, setPassword] = useState('');
  const ways = useQuery({ queryKey: ['sign-in-ways'], queryFn: getSignInWays });
  const entering = useMutation({
    mutationFn: () => signIn(username, password),
    onSuccess: (challenge) => (challenge === null ? onEntered() : onChallenge(challenge)),
  });
  const withPasskey = useMutation({
    mutationFn: () => signInWithPasskey(answerWithPasskey),
    onSuccess: onEntered,
  });
  const failure = entering.error ?? withPasskey.error;
  const wrong =
    failure instanceof RequestFailed && failure.status === 401 && entering.error !== null
      ? t('signIn.refused')
      : failure && failureText(failure, t);
  const told = wrong ?? (problem !== undefined && !entering.isPending ? problemText(problem, t) : null);
  const offersPasskey = ways.data?.passkey === true && passkeysAreKnown();
  return (
    <>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          withPasskey.reset();
          entering.mutate();
        }}
      >
        <Stack gap="md">
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
          {told && <Told>{told}</Told>}
          <Button type="submit" loading={entering.isPending} fullWidth data-testid="sign-in">
            {t('signIn.submit')}
          </Button>
        </Stack>
      </form>
      {(offersPasskey || ways.data?.oidc) && (
        <>
          <Divider label={t('signIn.or')} labelPosition="center" />
          {offersPasskey && (
            <Button
              variant="default"
              fullWidth
              loading={withPasskey.isPending}
              data-testid="sign-in-passkey"
              onClick={() => {
                entering.reset();
                withPasskey.mutate();
              }}
            >
              {t('signIn.passkey')}
            </Button>
          )}
          {ways.data?.oidc && (
            <Button
              component="a"
              href={`/api/v1/auth/oidc/start?next_path=${encodeURIComponent(next)}`}
              variant="default"
              fullWidth
              data-testid="sign-in-oidc"
            >
              {t('signIn.oidc', { name: ways.data.oidc })}
            </Button>
          )}
        </>
      )}
      <Group justify="space-between">
        <Anchor component={Link} to="/forgot-password" size="sm" data-testid="forgot-password">
          {t('signIn.forgot')}
        </Anchor>
        {ways.data?.sign_up && (
          <Anchor component={Link} to="/sign-up" size="sm" data-testid="sign-up">
            {t('signIn.signUp')}
          </Anchor>
        )}
      </Group>
    </>
  );
}

function Told({ children }: { children: ReactNode }) {
  return (
    <Alert color="red" variant="light" role="alert" data-testid="sign-in-error">
      {children}
    </Alert>
  );
}
