/**
 * Some calls want a fresh proof of identity (problem `step-up-required`). `useStepUp` asks for it in a dialog and repeats
 * the call; `dialog` goes anywhere into the page.
 */
import { Alert, Button, Modal, PasswordInput, Stack, Text, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { type ReactNode, useCallback, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { beginStepUp, type StepUpProof, stepUp } from '../api/account';
import { RequestFailed } from '../api/failure';
import { answerWithPasskey, passkeysAreKnown } from '../lib/passkey';
import { failureText } from './failure-text';

interface Asked {
  methods: string[];
  proven: () => void;
  declined: () => void;
}

/** The person closed the dialog: the call was not made, and that is no failure to tell. */
export class StepUpDeclined extends Error {}

export function useStepUp(): { fresh: <T>(call: () => Promise<T>) => Promise<T>; dialog: ReactNode } {
  const [asked, setAsked] = useState<Asked | null>(null);
  const fresh = useCallback(async <T,>(call: () => Promise<T>): Promise<T> => {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof RequestFailed && error.slug === 'step-up-required')) throw error;
      const methods = error.problem.methods as string[];
      await new Promise<void>((proven, declined) =>
        setAsked({ methods, proven, declined: () => declined(new StepUpDeclined()) }),
      );
      return call();
    }
  }, []);
  const close = (then: () => void) => {
    setAsked(null);
    then();
  };
  return {
    fresh,
    dialog: asked && (
      <StepUpDialog
        methods={asked.methods}
        onProven={() => close(asked.proven)}
        onClose={() => close(asked.declined)}
      />
    ),
  };
}

function StepUpDialog(props: { methods: string[]; onProven: () => void; onClose: () => void }) {
  const { t } = useTranslation();
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const proving = useMutation({
    mutationFn: async (proof: StepUpProof | 'passkey') => {
      if (proof !== 'passkey') return stepUp(proof);
      const { transaction, options } = await beginStepUp();
      return stepUp({ transaction, passkey: await answerWithPasskey(options) });
    },
    onSuccess: props.onProven,
  });
  const wrong = proving.error instanceof RequestFailed && proving.error.slug === 'proof-refused';
  return (
    <Modal opened onClose={props.onClose} title={t('stepUp.title')} centered>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          proving.mutate(code ? { totp: code } : { password });
        }}
      >
        <Stack gap="md">
          <Text size="sm">{t(props.methods.length > 0 ? 'stepUp.why' : 'stepUp.signInAgain')}</Text>
          {props.methods.includes('password') && (
            <PasswordInput
              label={t('signIn.password')}
              autoComplete="current-password"
              data-autofocus
              data-testid="step-up-password"
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
            />
          )}
          {props.methods.includes('totp') && (
            <TextInput
              label={t('signIn.code')}
              inputMode="numeric"
              autoComplete="one-time-code"
              data-testid="step-up-code"
              value={code}
              onChange={(event) => setCode(event.currentTarget.value)}
            />
          )}
          {proving.error !== null && (
            <Alert color="red" variant="light" role="alert" data-testid="step-up-error">
              {wrong ? t('stepUp.refused') : failureText(proving.error, t)}
            </Alert>
          )}
          {props.methods.length > 0 && (
            <Button
              type="submit"
              disabled={!password && !code}
              loading={proving.isPending}
              data-testid="step-up-submit"
            >
              {t('signIn.continue')}
            </Button>
          )}
          {props.methods.includes('passkey') && passkeysAreKnown() && (
            <Button variant="default" onClick={() => proving.mutate('passkey')}>
              {t('signIn.usePasskey')}
            </Button>
          )}
        </Stack>
      </form>
    </Modal>
  );
}
