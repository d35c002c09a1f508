/** What a project holds: studies put in and taken out. */
import { Badge, Button, Group, Loader, Table, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { DICOM_WEB_ROOT, queryStudies, queryStudiesByUid } from '../../api/dicom-web';
import { assignStudy, listProjectStudies, type ProjectStudy, unassignStudy } from '../../api/projects';
import { ConfirmButton } from '../../components/confirm-button';
import { Picture } from '../../components/picture';
import { Section } from '../../components/section';
import { useDate } from '../../lib/day';
import { type DicomDataset, isoDateOf, personNameOf, TAG, textOf, textsOf } from '../../lib/dicom-json';
import type { TabProps } from './access';
import classes from './projects.module.css';

const PAGE_SIZE = 25;
const FOUND_AT_ONCE = 8;
const TYPING_PAUSE_MS = 300;

export function DataTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const date = useDate();
  const assigns = access.may('study.assign');
  /** The cursors of the pages up to the shown one. */
  const [cursors, setCursors] = useState<(string | null)[]>([null]);
  const cursor = cursors.at(-1) ?? null;
  const held = useQuery({
    queryKey: ['project-studies', project.id, cursor],
    queryFn: () => listProjectStudies(project.id, cursor, PAGE_SIZE),
    placeholderData: keepPreviousData,
  });
  const uids = [...new Set(held.data?.items.map((one) => one.study_instance_uid))];
  const details = useQuery({
    queryKey: ['studies-by-uid', uids],
    queryFn: ({ signal }) => queryStudiesByUid(uids, signal),
    enabled: uids.length > 0,
    placeholderData: keepPreviousData,
  });
  const byUid = new Map(details.data?.map((one) => [textOf(one, TAG.studyInstanceUid), one]));
  const reload = async () => {
    await client.invalidateQueries({ queryKey: ['project-studies', project.id] });
    await client.invalidateQueries({ queryKey: ['project-study-count', project.id] });
    await client.invalidateQueries({ queryKey: ['rule-preview', project.id] });
  };
  const removing = useMutation({
    mutationFn: (study: ProjectStudy) => unassignStudy(project.id, study),
    onSuccess: reload,
  });
  return (
    <>
      {assigns && <AddStudies project={project} access={access} held={new Set(uids)} onAdded={reload} />}
      <Section
        title={t('data.title', { count: held.data?.total ?? 0 })}
        error={held.error ?? details.error ?? removing.error}
      >
        {held.isLoading && <Loader size="sm" mt="sm" aria-label={t('studies.loading')} />}
        {held.data?.items.length === 0 && (
          <div className={classes.empty} data-testid="data-empty">
            <Text fw={600}>{t('data.none')}</Text>
            <Text size="sm" c="dimmed">
              {t(assigns ? 'data.noneHint' : 'data.noneSeen')}
            </Text>
          </div>
        )}
        {(held.data?.items.length ?? 0) > 0 && (
          <Table.ScrollContainer minWidth={680}>
            <Table verticalSpacing={6} fz="sm" highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th aria-label={t('studies.picture')} w={60} />
                  <Table.Th>{t('studies.patient')}</Table.Th>
                  <Table.Th>{t('studies.date')}</Table.Th>
                  <Table.Th>{t('studies.description')}</Table.Th>
                  <Table.Th>{t('data.added')}</Table.Th>
                  {assigns && <Table.Th aria-label={t('data.remove')} />}
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {held.data?.items.map((one) => (
                  <HeldStudy
                    key={`${one.study_instance_uid} ${one.series_instance_uid} ${one.sop_instance_uid}`}
                    held={one}
                    study={byUid.get(one.study_instance_uid) ?? {}}
                    added={date(one.added_at)}
                    onRemove={assigns ? () => removing.mutate(one) : null}
                  />
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        )}
        <Group justify="flex-end" gap="xs" mt="xs">
          <Button
            size="compact-xs"
            variant="default"
            disabled={cursors.length === 1}
            onClick={() => setCursors(cursors.slice(0, -1))}
          >
            {t('studies.previous')}
          </Button>
          <Button
            size="compact-xs"
            variant="default"
            disabled={!held.data?.next}
            onClick={() => setCursors([...cursors, held.data?.next ?? null])}
          >
            {t('studies.next')}
          </Button>
        </Group>
      </Section>
    </>
  );
}

function HeldStudy(props: {
  held: ProjectStudy;
  study: DicomDataset;
  added: string;
  onRemove: (() => void) | null;
}) {
  const { t } = useTranslation();
  const { held, study } = props;
  const part = held.sop_instance_uid ? 'instance' : held.series_instance_uid ? 'series' : null;
  return (
    <Table.Tr data-testid="held-study">
      <Table.Td>
        <Picture src={`${DICOM_WEB_ROOT}/studies/${held.study_instance_uid}/thumbnail`} size={36} />
      </Table.Td>
      <Table.Td fw={500}>{personNameOf(study, TAG.patientName) || t('studies.unnamed')}</Table.Td>
      <Table.Td>{isoDateOf(study, TAG.studyDate)}</Table.Td>
      <Table.Td>
        {textOf(study, TAG.studyDescription)}
        {part !== null && (
          <Badge ml={6} size="sm" variant="light" color="gray" tt="none">
            {t(`data.only.${part}`)}
          </Badge>
        )}
      </Table.Td>
      <Table.Td c="dimmed">{props.added}</Table.Td>
      {props.onRemove && (
        <Table.Td ta="right">
          <ConfirmButton
            label={t('data.remove')}
            question={t('data.removeQuestion')}
            onConfirm={props.onRemove}
          />
        </Table.Td>
      )}
    </Table.Tr>
  );
}

function AddStudies({
  project,
  held,
  onAdded,
}: TabProps & { held: Set<string>; onAdded: () => Promise<void> }) {
  const { t } = useTranslation();
  const [name, setName] = useState('');
  const [settled] = useDebouncedValue(name.trim(), TYPING_PAUSE_MS);
  const found = useQuery({
    queryKey: ['studies-to-assign', settled],
    queryFn: ({ signal }) =>
      queryStudies(
        { patientName: settled, patientId: '', modality: null },
        { limit: FOUND_AT_ONCE, offset: 0 },
        signal,
      ),
    enabled: settled !== '',
    placeholderData: keepPreviousData,
  });
  const adding = useMutation({
    mutationFn: (study_instance_uid: string) => assignStudy(project.id, { study_instance_uid }),
    onSuccess: onAdded,
  });
  return (
    <Section title={t('data.add')} hint={t('data.addHint')} error={found.error ?? adding.error}>
      <TextInput
        mt="sm"
        w={280}
        placeholder={t('studies.patientName')}
        aria-label={t('studies.patientName')}
        data-testid="find-study"
        value={name}
        rightSection={found.isFetching ? <Loader size={14} /> : null}
        onChange={(event) => setName(event.currentTarget.value)}
      />
      {settled !== '' && found.data?.length === 0 && (
        <Text size="sm" c="dimmed" mt="xs">
          {t('studies.nothingFound')}
        </Text>
      )}
      {settled !== '' &&
        found.data?.map((study) => {
          const uid = textOf(study, TAG.studyInstanceUid);
          return (
            <div key={uid} className={classes.line}>
              <Text size="sm" truncate>
                {[
                  personNameOf(study, TAG.patientName) || t('studies.unnamed'),
                  textsOf(study, TAG.modalitiesInStudy).join(', '),
                  isoDateOf(study, TAG.studyDate),
                  textOf(study, TAG.studyDescription),
                ]
                  .filter(Boolean)
                  .join(' · ')}
              </Text>
              <Button
                size="compact-sm"
                disabled={held.has(uid) || adding.isPending}
                data-testid="assign-study"
                onClick={() => adding.mutate(uid)}
              >
                {t(held.has(uid) ? 'data.isHere' : 'members.add')}
              </Button>
            </div>
          );
        })}
    </Section>
  );
}
