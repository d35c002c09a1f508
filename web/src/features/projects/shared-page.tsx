/** Behind a share link, without an account: what the link shows, opened in OHIF. */
import { Button, Center, Loader, PasswordInput, Stack, Text, Title } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { DICOM_WEB_ROOT } from '../../api/dicom-web';
import { RequestFailed } from '../../api/failure';
import { openShareLink } from '../../api/share-links';
import { LanguageSwitch } from '../../components/language-switch';
import { Picture } from '../../components/picture';
import { Section } from '../../components/section';
import { useDay } from '../../lib/day';
import classes from './projects.module.css';

export function SharedPage() {
  const { t } = useTranslation();
  const day = useDay();
  const [token] = useState(() => window.location.hash.slice(1));
  const [password, setPassword] = useState('');
  const opening = useMutation({ mutationFn: (given: string | null) => openShareLink(token, given) });
  const { mutate } = opening;
  // Opening counts as a use: it happens once, also where React mounts twice in development.
  useEffect(() => {
    const timer = setTimeout(() => mutate(null), 0);
    return () => clearTimeout(timer);
  }, [mutate]);
  const wantsPassword =
    opening.error instanceof RequestFailed && opening.error.slug.startsWith('share-password');
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <div className={classes.line}>
          <Title order={1} size="h3">
            {opening.data?.name ?? 'Annotomy'}
          </Title>
          <LanguageSwitch />
        </div>
        {(opening.isIdle || opening.isPending) && (
          <Center p="xl">
            <Loader aria-label={t('shares.opening')} />
          </Center>
        )}
        {opening.error !== null && (
          <Section
            title={t(wantsPassword ? 'shares.askPassword' : 'shares.notValid')}
            hint={t(wantsPassword ? 'shares.askPasswordHint' : 'shares.notValidHint')}
            error={wantsPassword && !opening.variables ? null : wantsPassword ? opening.error : null}
          >
            <div data-testid="share-refused" />
            {wantsPassword && (
              <form
                className={classes.form}
                onSubmit={(event) => {
                  event.preventDefault();
                  mutate(password);
                }}
              >
                <PasswordInput
                  label={t('signIn.password')}
                  w={260}
                  value={password}
                  data-testid="share-password"
                  onChange={(event) => setPassword(event.currentTarget.value)}
                />
                <Button type="submit" disabled={!password} data-testid="share-password-submit">
                  {t('signIn.continue')}
                </Button>
              </form>
            )}
          </Section>
        )}
        {opening.data && (
          <Section
            title={t('shares.studies', { count: opening.data.studies.length })}
            hint={t('shares.validUntil', { day: day(opening.data.expires_at) })}
          >
            <Stack gap={0} mt="xs">
              {opening.data.studies.map(({ study_instance_uid: uid }, index) => (
                <div key={uid} className={classes.line} data-testid="shared-study">
                  <Picture src={`${DICOM_WEB_ROOT}/studies/${uid}/thumbnail`} size={72} />
                  <Text size="sm" flex={1}>
                    {t('shares.study', { number: index + 1 })}
                  </Text>
                  <Button component="a" href={`/ohif/viewer?StudyInstanceUIDs=${uid}`}>
                    {t('studies.open')}
                  </Button>
                </div>
              ))}
            </Stack>
          </Section>
        )}
      </div>
    </div>
  );
}
