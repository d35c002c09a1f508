/** Links into the project for who has no account: made, copied once, listed, revoked. */
import {
  Alert,
  Badge,
  Button,
  Checkbox,
  Code,
  CopyButton,
  Group,
  Loader,
  MultiSelect,
  NumberInput,
  PasswordInput,
  Text,
  TextInput,
} from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { queryStudiesByUid } from '../../api/dicom-web';
import { listProjectStudies } from '../../api/projects';
import {
  createShareLink,
  type IssuedShareLink,
  listShareLinks,
  revokeShareLink,
  type ShareLink,
} from '../../api/share-links';
import { ConfirmButton } from '../../components/confirm-button';
import { Section } from '../../components/section';
import { useStepUp } from '../../components/step-up';
import { endOfDay, useDate } from '../../lib/day';
import { isoDateOf, personNameOf, TAG, textOf } from '../../lib/dicom-json';
import type { TabProps } from './access';
import classes from './projects.module.css';

const STATE_COLORS: Record<ShareLink['state'], string> = {
  active: 'teal',
  expired: 'gray',
  used_up: 'gray',
  revoked: 'red',
};
/** Studies to choose from: one page; a link names few. */
const CHOICE = 50;

export function SharesTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const date = useDate();
  const links = useQuery({
    queryKey: ['share-links', project.id],
    queryFn: () => listShareLinks(project.id),
  });
  const [issued, setIssued] = useState<IssuedShareLink | null>(null);
  const reload = () => client.invalidateQueries({ queryKey: ['share-links', project.id] });
  const revoking = useMutation({
    mutationFn: (id: string) => revokeShareLink(project.id, id),
    onSuccess: reload,
  });
  const address = issued && `${window.location.origin}${issued.path}`;
  return (
    <>
      {access.may('study.share') && (
        <NewLink
          project={project}
          access={access}
          onMade={async (link) => {
            setIssued(link);
            await reload();
          }}
        />
      )}
      <Section
        title={t('shares.title', { count: links.data?.length ?? 0 })}
        error={links.error ?? revoking.error}
      >
        {address && (
          <Alert color="yellow" variant="light" my="sm" title={t('shares.once')}>
            <Group gap="sm">
              <Code style={{ overflowWrap: 'anywhere' }} data-testid="share-address">
                {address}
              </Code>
              <CopyButton value={address}>
                {({ copied, copy }) => (
                  <Button size="compact-sm" variant="default" onClick={copy}>
                    {t(copied ? 'identity.copied' : 'identity.copy')}
                  </Button>
                )}
              </CopyButton>
            </Group>
          </Alert>
        )}
        {links.isLoading && <Loader size="sm" mt="sm" aria-label={t('shares.loading')} />}
        {links.data?.length === 0 && (
          <Text size="sm" c="dimmed" mt="xs">
            {t('shares.none')}
          </Text>
        )}
        {links.data?.map((link) => (
          <div key={link.id} className={classes.line} data-testid="share-link">
            <div className={classes.text}>
              <Text size="sm" fw={500}>
                {link.name}
              </Text>
              <Text size="xs" c="dimmed">
                {[
                  link.creator,
                  t('shares.studies', { count: link.studies.length }),
                  link.actions.map((action) => t(`shares.actions.${action}`)).join(', '),
                  t('members.untilDay', { day: date(link.expires_at) }),
                  link.max_uses === null
                    ? t('shares.uses', { count: link.uses })
                    : t('shares.usesOf', { count: link.uses, most: link.max_uses }),
                  link.has_password && t('shares.withPassword'),
                ]
                  .filter(Boolean)
                  .join(' · ')}
              </Text>
            </div>
            <Group gap="xs">
              <Badge variant="light" tt="none" color={STATE_COLORS[link.state]} data-testid="share-state">
                {t(`shares.states.${link.state}`)}
              </Badge>
              {link.state === 'active' && (
                <ConfirmButton
                  label={t('shares.revoke')}
                  question={t('shares.revokeQuestion')}
                  testId="revoke-share"
                  onConfirm={() => revoking.mutate(link.id)}
                />
              )}
            </Group>
          </div>
        ))}
      </Section>
    </>
  );
}

function NewLink({
  project,
  access,
  onMade,
}: TabProps & { onMade: (link: IssuedShareLink) => Promise<void> }) {
  const { t } = useTranslation();
  const { fresh, dialog } = useStepUp();
  const [name, setName] = useState('');
  const [chosen, setChosen] = useState<string[]>([]);
  const [until, setUntil] = useState(inAWeek);
  const [download, setDownload] = useState(false);
  const [password, setPassword] = useState('');
  const [uses, setUses] = useState<number | string>('');
  const studies = useQuery({
    queryKey: ['studies-to-share', project.id],
    queryFn: async ({ signal }) => {
      const held = await listProjectStudies(project.id, null, CHOICE);
      const uids = [...new Set(held.items.map((one) => one.study_instance_uid))];
      return uids.length > 0 ? queryStudiesByUid(uids, signal) : [];
    },
  });
  const making = useMutation({
    mutationFn: () =>
      fresh(() =>
        createShareLink(project.id, {
          name,
          studies: chosen.map((study_instance_uid) => ({ study_instance_uid, series_instance_uids: [] })),
          expires_at: endOfDay(until) as string,
          actions: download ? ['view', 'download'] : ['view'],
          password: password || null,
          max_uses: typeof uses === 'number' ? uses : null,
        }),
      ),
    onSuccess: (link) => {
      setName('');
      setChosen([]);
      setPassword('');
      return onMade(link);
    },
  });
  return (
    <Section title={t('shares.new')} hint={t('shares.newHint')} error={making.error ?? studies.error}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          making.mutate();
        }}
      >
        <div className={classes.form}>
          <TextInput
            label={t('shares.name')}
            description={t('shares.nameHint')}
            w={260}
            value={name}
            data-testid="share-name"
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <MultiSelect
            label={t('shares.which')}
            flex={1}
            miw={260}
            searchable
            data-testid="share-studies"
            data={studies.data?.map((study) => ({
              value: textOf(study, TAG.studyInstanceUid),
              label: [
                personNameOf(study, TAG.patientName) || t('studies.unnamed'),
                isoDateOf(study, TAG.studyDate),
                textOf(study, TAG.studyDescription),
              ]
                .filter(Boolean)
                .join(' · '),
            }))}
            value={chosen}
            onChange={setChosen}
          />
        </div>
        <div className={classes.form}>
          <TextInput
            type="date"
            label={t('members.until')}
            required
            withAsterisk={false}
            w={160}
            value={until}
            onChange={(event) => setUntil(event.currentTarget.value)}
          />
          <NumberInput
            label={t('shares.maxUses')}
            placeholder={t('shares.anyUses')}
            w={150}
            min={1}
            allowDecimal={false}
            value={uses}
            onChange={setUses}
          />
          <PasswordInput
            label={t('shares.password')}
            w={200}
            autoComplete="new-password"
            value={password}
            onChange={(event) => setPassword(event.currentTarget.value)}
          />
          {access.may('study.export') && (
            <Checkbox
              mb={8}
              label={t('shares.download')}
              checked={download}
              onChange={(event) => setDownload(event.currentTarget.checked)}
            />
          )}
          <Button
            type="submit"
            disabled={!name.trim() || chosen.length === 0 || !until}
            loading={making.isPending}
            data-testid="create-share"
          >
            {t('shares.create')}
          </Button>
        </div>
      </form>
      {dialog}
    </Section>
  );
}

const WEEK_MS = 7 * 24 * 3600 * 1000;
const inAWeek = () => new Date(Date.now() + WEEK_MS).toISOString().slice(0, 10);
