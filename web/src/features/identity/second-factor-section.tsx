/** Authenticator app, recovery codes and passkeys of one's own account. */
import { Alert, Badge, Button, Group, Stack, Text, TextInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import {
  addPasskey,
  beginPasskey,
  beginTotp,
  confirmTotp,
  makeRecoveryCodes,
  type NewTotp,
  type Profile,
  removePasskey,
  removeTotp,
} from '../../api/account';
import { Section } from '../../components/section';
import classes from '../../components/settings-page.module.css';
import { useDay } from '../../lib/day';
import { createPasskey, passkeysAreKnown } from '../../lib/passkey';

interface Props {
  profile: Profile;
  fresh: <T>(call: () => Promise<T>) => Promise<T>;
}

export function SecondFactorSection({ profile, fresh }: Props) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const day = useDay();
  const [begun, setBegun] = useState<NewTotp | null>(null);
  const [codes, setCodes] = useState<string[] | null>(null);
  const reload = () => client.invalidateQueries({ queryKey: ['profile'] });
  const beginning = useMutation({ mutationFn: () => fresh(beginTotp), onSuccess: setBegun });
  const confirming = useMutation({
    mutationFn: (code: string) => fresh(() => confirmTotp(code)),
    onSuccess: ({ recovery_codes }) => {
      setBegun(null);
      setCodes(recovery_codes);
      return reload();
    },
  });
  const removing = useMutation({ mutationFn: () => fresh(removeTotp), onSuccess: reload });
  const renewing = useMutation({
    mutationFn: () => fresh(makeRecoveryCodes),
    onSuccess: ({ recovery_codes }) => {
      setCodes(recovery_codes);
      return reload();
    },
  });
  const adding = useMutation({
    mutationFn: async () => {
      const { transaction, options } = await fresh(beginPasskey);
      return addPasskey(transaction, await createPasskey(options), navigator.platform || 'passkey');
    },
    onSuccess: reload,
  });
  const dropping = useMutation({
    mutationFn: (id: string) => fresh(() => removePasskey(id)),
    onSuccess: reload,
  });
  const error =
    beginning.error ?? confirming.error ?? removing.error ?? renewing.error ?? adding.error ?? dropping.error;
  return (
    <Section title={t('factor.title')} hint={t('factor.hint')} error={error}>
      <div className={classes.row}>
        <div className={classes.rowText}>
          <Group gap={8}>
            <Text size="sm" fw={500}>
              {t('factor.app')}
            </Text>
            {profile.has_totp && (
              <Badge size="sm" variant="light" tt="none" data-testid="totp-on">
                {t('factor.on')}
              </Badge>
            )}
          </Group>
          <Text size="xs" c="dimmed">
            {profile.has_totp
              ? t('factor.codesLeft', { count: profile.recovery_codes })
              : t('factor.appHint')}
          </Text>
        </div>
        {profile.has_totp ? (
          <Group gap={6} wrap="nowrap">
            <Button size="compact-sm" variant="default" onClick={() => renewing.mutate()}>
              {t('factor.newCodes')}
            </Button>
            <Button
              size="compact-sm"
              variant="default"
              color="red"
              data-testid="remove-totp"
              onClick={() => removing.mutate()}
            >
              {t('identity.remove')}
            </Button>
          </Group>
        ) : (
          <Button
            size="compact-sm"
            variant="default"
            loading={beginning.isPending}
            data-testid="add-totp"
            onClick={() => beginning.mutate()}
          >
            {t('factor.setUp')}
          </Button>
        )}
      </div>
      {begun && (
        <TotpSetUp begun={begun} pending={confirming.isPending} onCode={(code) => confirming.mutate(code)} />
      )}
      {codes && (
        <Alert
          color="yellow"
          variant="light"
          my="sm"
          title={t('factor.codesTitle')}
          withCloseButton
          closeButtonLabel={t('identity.close')}
          onClose={() => setCodes(null)}
        >
          <Text size="xs" mb={8}>
            {t('factor.codesHint')}
          </Text>
          <div className={classes.codes} data-testid="recovery-codes">
            {codes.map((code) => (
              <span key={code}>{code}</span>
            ))}
          </div>
        </Alert>
      )}
      {profile.passkeys.map((passkey) => (
        <div key={passkey.id} className={classes.row} data-testid="passkey">
          <div className={classes.rowText}>
            <Text size="sm" fw={500}>
              {t('factor.passkey', { name: passkey.name })}
            </Text>
            <Text size="xs" c="dimmed">
              {t('identity.added', { day: day(passkey.created_at) })}
              {passkey.last_used_at && ` · ${t('identity.used', { day: day(passkey.last_used_at) })}`}
            </Text>
          </div>
          <Button size="compact-sm" variant="default" onClick={() => dropping.mutate(passkey.id)}>
            {t('identity.remove')}
          </Button>
        </div>
      ))}
      {passkeysAreKnown() && (
        <div className={classes.row}>
          <Text size="xs" c="dimmed">
            {t('factor.passkeyHint')}
          </Text>
          <Button
            size="compact-sm"
            variant="default"
            loading={adding.isPending}
            data-testid="add-passkey"
            onClick={() => adding.mutate()}
          >
            {t('factor.addPasskey')}
          </Button>
        </div>
      )}
    </Section>
  );
}

function TotpSetUp(props: { begun: NewTotp; pending: boolean; onCode: (code: string) => void }) {
  const { t } = useTranslation();
  const [code, setCode] = useState('');
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        props.onCode(code);
      }}
    >
      <Group align="flex-start" wrap="nowrap" my="sm" gap="lg">
        <img
          className={classes.qr}
          src={`data:image/svg+xml;utf8,${encodeURIComponent(props.begun.qr_svg)}`}
          alt={t('factor.qr')}
          data-testid="totp-qr"
        />
        <Stack gap="sm">
          <Text size="sm">{t('factor.scan')}</Text>
          <Text size="xs" c="dimmed" className={classes.secret} data-testid="totp-secret">
            {props.begun.secret}
          </Text>
          <TextInput
            label={t('signIn.code')}
            inputMode="numeric"
            autoComplete="one-time-code"
            value={code}
            data-testid="totp-code"
            onChange={(event) => setCode(event.currentTarget.value)}
          />
          <Group>
            <Button type="submit" disabled={!code} loading={props.pending} data-testid="totp-confirm">
              {t('factor.confirm')}
            </Button>
          </Group>
        </Stack>
      </Group>
    </form>
  );
}
