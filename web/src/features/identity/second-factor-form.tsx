/** The second step of signing in: a code of the authenticator app, a recovery code, or a passkey. */
import { Alert, Anchor, Button, Group, Stack, Text, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { RequestFailed } from '../../api/failure';
import { continueSignIn, type SecondFactorChallenge, type SecondFactorProof } from '../../api/session';
import { failureText } from '../../components/failure-text';
import { answerWithPasskey, passkeysAreKnown } from '../../lib/passkey';

interface Props {
  challenge: SecondFactorChallenge;
  onEntered: () => void;
  onBack: () => void;
}

export function SecondFactorForm({ challenge, onEntered, onBack }: Props) {
  const { t } = useTranslation();
  const [recovering, setRecovering] = useState(false);
  const [code, setCode] = useState('');
  const proving = useMutation({
    mutationFn: async (proof: SecondFactorProof | 'passkey') => {
      const sent =
        proof === 'passkey' && challenge.passkey_options !== null
          ? { passkey: await answerWithPasskey(challenge.passkey_options) }
          : proof;
      await continueSignIn(challenge.transaction, sent as SecondFactorProof);
    },
    onSuccess: onEntered,
  });
  const takesCodes = challenge.methods.includes('totp') || recovering;
  const wrong = proving.error instanceof RequestFailed && proving.error.status === 401;
  return (
    <Stack gap="md">
      <Text size="sm">{t(recovering ? 'signIn.recoveryHint' : 'signIn.secondFactorHint')}</Text>
      {takesCodes && (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            proving.mutate(recovering ? { recovery_code: code } : { totp: code });
          }}
        >
          <Stack gap="md">
            <TextInput
              label={t(recovering ? 'signIn.recoveryCode' : 'signIn.code')}
              key={recovering ? 'recovery' : 'totp'}
              inputMode={recovering ? 'text' : 'numeric'}
              autoComplete="one-time-code"
              autoFocus
              required
              withAsterisk={false}
              data-testid="second-factor-code"
              value={code}
              onChange={(event) => setCode(event.currentTarget.value)}
            />
            <Button type="submit" loading={proving.isPending} fullWidth data-testid="second-factor-submit">
              {t('signIn.continue')}
            </Button>
          </Stack>
        </form>
      )}
      {challenge.methods.includes('passkey') && passkeysAreKnown() && (
        <Button
          variant={takesCodes ? 'default' : 'filled'}
          fullWidth
          loading={proving.isPending}
          data-testid="second-factor-passkey"
          onClick={() => proving.mutate('passkey')}
        >
          {t('signIn.usePasskey')}
        </Button>
      )}
      {proving.error !== null && (
        <Alert color="red" variant="light" role="alert" data-testid="sign-in-error">
          {wrong ? t('signIn.codeRefused') : failureText(proving.error, t)}
        </Alert>
      )}
      <Group justify="space-between">
        <Anchor component="button" type="button" size="sm" onClick={onBack}>
          {t('signIn.back')}
        </Anchor>
        {challenge.methods.includes('recovery_code') && (
          <Anchor
            component="button"
            type="button"
            size="sm"
            data-testid="use-recovery-code"
            onClick={() => {
              setRecovering(!recovering);
              setCode('');
            }}
          >
            {t(recovering ? 'signIn.useCode' : 'signIn.useRecoveryCode')}
          </Anchor>
        )}
      </Group>
    </Stack>
  );
}
