/** What a share link opens: the link is exchanged for a cookie that viewers send, then the study opens in one. */
import { Alert, Anchor, Button, List, Loader, PasswordInput, Stack, Text } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { openShareLink, type SharedAccess } from '../../api/account';
import { RequestFailed } from '../../api/failure';
import { failureText } from '../../components/failure-text';
import { CardPage } from './card-page';

export function SharePage() {
  const { t } = useTranslation();
  // The token stands in the fragment, which no server's log sees; it is read once, then leaves the address bar.
  const [token] = useState(() => {
    const found = window.location.hash.slice(1);
    window.history.replaceState(window.history.state, '', window.location.pathname);
    return found;
  });
  const [password, setPassword] = useState('');
  const opening = useMutation({
    mutationFn: (given: string) => openShareLink(token, given || undefined),
    onSuccess: ({ studies }) => {
      const [only, ...others] = studies;
      if (only !== undefined && others.length === 0)
        window.location.assign(viewerOf(only.study_instance_uid));
    },
  });
  const { mutate } = opening;
  useEffect(() => mutate(''), [mutate]);
  const asksForPassword =
    opening.error instanceof RequestFailed && opening.error.slug === 'share-password-needed';
  const send = (event: FormEvent) => {
    event.preventDefault();
    mutate(password);
  };
  return (
    <CardPage title={t('share.title')}>
      {opening.isPending && <Loader aria-label={t('share.opening')} />}
      {opening.data && <Studies access={opening.data} />}
      {opening.error !== null && (!asksForPassword || password) && (
        <Alert color="red" variant="light" role="alert" data-testid="share-error">
          {failureText(opening.error, t)}
        </Alert>
      )}
      {asksForPassword && (
        <form onSubmit={send}>
          <Stack gap="md">
            <PasswordInput
              label={t('share.password')}
              required
              autoFocus
              autoComplete="off"
              withAsterisk={false}
              data-testid="share-password"
              value={password}
              onChange={(event) => setPassword(event.currentTarget.value)}
            />
            <Button type="submit" fullWidth data-testid="share-submit">
              {t('share.open')}
            </Button>
          </Stack>
        </form>
      )}
    </CardPage>
  );
}

function Studies({ access }: { access: SharedAccess }) {
  const { t } = useTranslation();
  return (
    <>
      <Text fw={600}>{access.name}</Text>
      <List data-testid="shared-studies">
        {access.studies.map((study, index) => (
          <List.Item key={study.study_instance_uid}>
            <Anchor href={viewerOf(study.study_instance_uid)}>
              {t('share.study', { number: index + 1 })}
            </Anchor>
          </List.Item>
        ))}
      </List>
    </>
  );
}

/** The viewer that needs DICOMweb alone, which is all that a link reaches. */
function viewerOf(studyUid: string): string {
  return `/ohif/viewer?StudyInstanceUIDs=${encodeURIComponent(studyUid)}`;
}
