/** The studies that one may see, newest first as the server answers them, searched and paged by QIDO-RS. */
import { Button, Code, Group, Loader, Select, Table, Text, TextInput } from '@mantine/core';
import { useDebouncedValue, useHotkeys } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { type KeyboardEvent, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { DICOM_WEB_ROOT, queryStudies, type StudySearch } from '../../api/dicom-web';
import { FailureNotice } from '../../components/failure-notice';
import {
  type DicomDataset,
  isoDateOf,
  numberOf,
  personNameOf,
  TAG,
  textOf,
  textsOf,
} from '../../lib/dicom-json';
import classes from './study-list-page.module.css';

const PAGE_SIZE = 50;
const TYPING_PAUSE_MS = 300;
const MODALITIES = ['CR', 'CT', 'DX', 'MG', 'MR', 'NM', 'OT', 'PT', 'US', 'XA', 'SEG', 'SR'];

export function StudyListPage() {
  const { t } = useTranslation();
  const [search, setSearch] = useState<StudySearch>({ patientName: '', patientId: '', modality: null });
  const [settled] = useDebouncedValue(search, TYPING_PAUSE_MS);
  const [offset, setOffset] = useState(0);
  const firstField = useRef<HTMLInputElement>(null);
  useHotkeys([['/', () => firstField.current?.focus()]]);

  const studies = useQuery({
    queryKey: ['studies', settled, offset],
    // One more than is shown tells whether there is a next page.
    queryFn: ({ signal }) => queryStudies(settled, { limit: PAGE_SIZE + 1, offset }, signal),
    placeholderData: keepPreviousData,
  });
  const shown = studies.data?.slice(0, PAGE_SIZE) ?? [];
  const hasNext = (studies.data?.length ?? 0) > PAGE_SIZE;
  const change = (part: Partial<StudySearch>) => {
    setSearch({ ...search, ...part });
    setOffset(0);
  };

  return (
    <div className={classes.page}>
      <div className={classes.toolbar}>
        <h1 className={classes.title}>{t('studies.title')}</h1>
        <TextInput
          ref={firstField}
          size="xs"
          w={190}
          placeholder={t('studies.patientName')}
          aria-label={t('studies.patientName')}
          data-testid="search-name"
          value={search.patientName}
          onChange={(event) => change({ patientName: event.currentTarget.value })}
        />
        <TextInput
          size="xs"
          w={150}
          placeholder={t('studies.patientId')}
          aria-label={t('studies.patientId')}
          data-testid="search-id"
          value={search.patientId}
          onChange={(event) => change({ patientId: event.currentTarget.value })}
        />
        <Select
          size="xs"
          w={130}
          placeholder={t('studies.modality')}
          aria-label={t('studies.modality')}
          data-testid="search-modality"
          data={MODALITIES}
          clearable
          value={search.modality}
          onChange={(modality) => change({ modality })}
        />
        {studies.isFetching && <Loader size="xs" aria-label={t('studies.loading')} />}
      </div>

      <div className={classes.table}>
        {studies.error !== null && (
          <FailureNotice
            title={t('studies.failed')}
            error={studies.error}
            onRetry={() => void studies.refetch()}
            testId="studies-error"
          />
        )}
        {studies.isSuccess && shown.length === 0 && (
          <div className={classes.empty} data-testid="studies-empty">
            <Text fw={600}>{t(isSearch(settled) ? 'studies.nothingFound' : 'studies.empty')}</Text>
            <Text size="sm" c="dimmed">
              {t(isSearch(settled) ? 'studies.nothingFoundHint' : 'studies.emptyHint')}
            </Text>
            {!isSearch(settled) && (
              <Code block className={classes.command}>
                ./run cli import FOLDER --project NAME
              </Code>
            )}
          </div>
        )}
        {shown.length > 0 && <StudyTable studies={shown} />}
      </div>

      <div className={classes.footer}>
        <Text size="xs" c="dimmed">
          {t('studies.keys')}
        </Text>
        <Group gap="xs">
          <Text size="xs" c="dimmed">
            {shown.length > 0 && t('studies.range', { from: offset + 1, to: offset + shown.length })}
          </Text>
          <Button
            size="compact-xs"
            variant="default"
            disabled={offset === 0}
            onClick={() => setOffset(Math.max(0, offset - PAGE_SIZE))}
          >
            {t('studies.previous')}
          </Button>
          <Button
            size="compact-xs"
            variant="default"
            disabled={!hasNext}
            onClick={() => setOffset(offset + PAGE_SIZE)}
          >
            {t('studies.next')}
          </Button>
        </Group>
      </div>
    </div>
  );
}

function StudyTable({ studies }: { studies: DicomDataset[] }) {
  const { t } = useTranslation();
  return (
    <Table
      stickyHeader
      highlightOnHover
      verticalSpacing={6}
      horizontalSpacing="sm"
      fz="sm"
      data-testid="studies"
    >
      <Table.Thead className={classes.head}>
        <Table.Tr>
          <Table.Th className={classes.pictureCell} aria-label={t('studies.picture')} />
          <Table.Th>{t('studies.patient')}</Table.Th>
          <Table.Th>{t('studies.patientId')}</Table.Th>
          <Table.Th>{t('studies.date')}</Table.Th>
          <Table.Th>{t('studies.modalities')}</Table.Th>
          <Table.Th>{t('studies.description')}</Table.Th>
          <Table.Th className={classes.count}>{t('studies.series')}</Table.Th>
          <Table.Th className={classes.count}>{t('studies.instances')}</Table.Th>
          <Table.Th />
        </Table.Tr>
      </Table.Thead>
      <Table.Tbody>
        {studies.map((study) => (
          <StudyRow key={textOf(study, TAG.studyInstanceUid)} study={study} />
        ))}
      </Table.Tbody>
    </Table>
  );
}

function StudyRow({ study }: { study: DicomDataset }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const studyUid = textOf(study, TAG.studyInstanceUid);
  const open = () => void navigate({ to: '/viewer/$studyUid', params: { studyUid } });
  return (
    <Table.Tr
      tabIndex={0}
      className={classes.row}
      data-testid="study-row"
      data-study-uid={studyUid}
      onDoubleClick={open}
      onKeyDown={(event) => moveOrOpen(event, open)}
    >
      <Table.Td className={classes.pictureCell}>
        <StudyPicture studyUid={studyUid} />
      </Table.Td>
      <Table.Td fw={500}>{personNameOf(study, TAG.patientName) || t('studies.unnamed')}</Table.Td>
      <Table.Td c="dimmed">{textOf(study, TAG.patientId)}</Table.Td>
      <Table.Td className={classes.numeric}>{isoDateOf(study, TAG.studyDate)}</Table.Td>
      <Table.Td>
        {textsOf(study, TAG.modalitiesInStudy).map((modality) => (
          <span key={modality} className={classes.modality}>
            {modality}
          </span>
        ))}
      </Table.Td>
      <Table.Td>{textOf(study, TAG.studyDescription)}</Table.Td>
      <Table.Td className={classes.count}>{numberOf(study, TAG.studyRelatedSeries) ?? '–'}</Table.Td>
      <Table.Td className={classes.count}>{numberOf(study, TAG.studyRelatedInstances) ?? '–'}</Table.Td>
      <Table.Td>
        <Group gap={6} justify="flex-end" wrap="nowrap">
          <Button size="compact-xs" onClick={open} data-testid="open-study">
            {t('studies.open')}
          </Button>
          <Button
            size="compact-xs"
            variant="default"
            component="a"
            href={`/ohif/viewer?StudyInstanceUIDs=${studyUid}`}
            target="_blank"
            rel="noopener"
            data-testid="open-ohif"
          >
            {t('studies.openOhif')}
          </Button>
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}

/** Rendered by the server, fetched with the viewer's cookie; a study without an image that can be drawn keeps its dark square. */
function StudyPicture({ studyUid }: { studyUid: string }) {
  const [failed, setFailed] = useState(false);
  return (
    <span className={classes.picture}>
      {!failed && (
        <img
          src={`${DICOM_WEB_ROOT}/studies/${studyUid}/thumbnail`}
          alt=""
          loading="lazy"
          draggable={false}
          onError={() => setFailed(true)}
        />
      )}
    </span>
  );
}

function isSearch(search: StudySearch): boolean {
  return search.patientName !== '' || search.patientId !== '' || search.modality !== null;
}

function moveOrOpen(event: KeyboardEvent<HTMLTableRowElement>, open: () => void): void {
  const row = event.currentTarget;
  if (event.key === 'Enter' && event.target === row) open();
  const neighbour =
    event.key === 'ArrowDown'
      ? row.nextElementSibling
      : event.key === 'ArrowUp'
        ? row.previousElementSibling
        : null;
  if (neighbour instanceof HTMLElement) {
    event.preventDefault();
    neighbour.focus();
  }
}
