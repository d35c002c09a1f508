/** The studies that one may see, newest first as the server answers them, searched and paged by QIDO-RS. */
import { Button, Code, Group, Loader, Select, Table, Text, TextInput } from '@mantine/core';
import { useDebouncedValue, useHotkeys } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { type KeyboardEvent, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { DICOM_WEB_ROOT, queryStudies, type StudySearch } from '../../api/dicom-web';
import { FailureNotice } from '../../components/failure-notice';
import { Picture } from '../../components/picture';
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
import { StudyPreview } from './study-preview';

const PAGE_SIZE = 50;
const TYPING_PAUSE_MS = 300;
/** As long as operating systems wait for the second click. */
const DOUBLE_CLICK_MS = 500;
const MODALITIES = ['CR', 'CT', 'DX', 'MG', 'MR', 'NM', 'OT', 'PT', 'US', 'XA', 'SEG', 'SR'];

export function StudyListPage() {
  const { t } = useTranslation();
  const [search, setSearch] = useState<StudySearch>({ patientName: '', patientId: '', modality: null });
  const [settled] = useDebouncedValue(search, TYPING_PAUSE_MS);
  const [offset, setOffset] = useState(0);
  const [selectedUid, setSelectedUid] = useState<string | null>(null);
  const navigate = useNavigate();
  const firstField = useRef<HTMLInputElement>(null);
  const table = useRef<HTMLDivElement>(null);
  const selectedAt = useRef(0);
  const select = (studyUid: string) => {
    selectedAt.current = performance.now();
    setSelectedUid(studyUid);
  };
  const closePreview = () => {
    setSelectedUid(null);
    table.current?.querySelector<HTMLElement>('[aria-selected=true]')?.focus();
  };
  useHotkeys([
    ['/', () => firstField.current?.focus()],
    ['Escape', closePreview],
  ]);

  const studies = useQuery({
    queryKey: ['studies', settled, offset],
    // One more than is shown tells whether there is a next page.
    queryFn: ({ signal }) => queryStudies(settled, { limit: PAGE_SIZE + 1, offset }, signal),
    placeholderData: keepPreviousData,
  });
  const shown = studies.data?.slice(0, PAGE_SIZE) ?? [];
  const hasNext = (studies.data?.length ?? 0) > PAGE_SIZE;
  const selected = shown.find((study) => textOf(study, TAG.studyInstanceUid) === selectedUid);
  const open = (studyUid: string) => void navigate({ to: '/viewer/$studyUid', params: { studyUid } });
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

      {/* The preview may come to lie under the pointer between two clicks on a row: it then gets the double click. */}
      {/* biome-ignore lint/a11y/noStaticElementInteractions: Enter on the row does the same */}
      <div
        className={classes.body}
        onDoubleClick={(event) => {
          const onRow = table.current?.contains(event.target as Node) ?? false;
          if (!onRow && selectedUid && event.timeStamp - selectedAt.current < DOUBLE_CLICK_MS)
            open(selectedUid);
        }}
      >
        <div className={classes.table} ref={table}>
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
          {shown.length > 0 && (
            <StudyTable studies={shown} selectedUid={selectedUid} onSelect={select} onOpen={open} />
          )}
        </div>
        {selected && (
          <StudyPreview
            key={selectedUid}
            study={selected}
            onOpen={() => open(textOf(selected, TAG.studyInstanceUid))}
            onClose={closePreview}
          />
        )}
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

interface Choice {
  selectedUid: string | null;
  onSelect: (studyUid: string) => void;
  onOpen: (studyUid: string) => void;
}

function StudyTable({ studies, ...choice }: { studies: DicomDataset[] } & Choice) {
  const { t } = useTranslation();
  return (
    <Table
      role="grid"
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
          <StudyRow key={textOf(study, TAG.studyInstanceUid)} study={study} {...choice} />
        ))}
      </Table.Tbody>
    </Table>
  );
}

function StudyRow({ study, selectedUid, onSelect, onOpen }: { study: DicomDataset } & Choice) {
  const { t } = useTranslation();
  const studyUid = textOf(study, TAG.studyInstanceUid);
  const open = () => onOpen(studyUid);
  const selected = studyUid === selectedUid;
  return (
    <Table.Tr
      tabIndex={0}
      className={classes.row}
      data-testid="study-row"
      data-study-uid={studyUid}
      aria-selected={selected}
      onClick={() => onSelect(studyUid)}
      onDoubleClick={open}
      onKeyDown={(event) => act(event, { open, select: onSelect, follow: selectedUid !== null })}
    >
      <Table.Td className={classes.pictureCell}>
        <Picture src={`${DICOM_WEB_ROOT}/studies/${studyUid}/thumbnail`} />
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

function isSearch(search: StudySearch): boolean {
  return search.patientName !== '' || search.patientId !== '' || search.modality !== null;
}

interface Act {
  open: () => void;
  select: (studyUid: string) => void;
  /** The preview is open and shows what the arrow keys come to. */
  follow: boolean;
}

function act(event: KeyboardEvent<HTMLTableRowElement>, { open, select, follow }: Act): void {
  const row = event.currentTarget;
  if (event.target === row && event.key === 'Enter') open();
  if (event.target === row && event.key === ' ') {
    event.preventDefault();
    select(row.dataset.studyUid as string);
  }
  const neighbour =
    event.key === 'ArrowDown'
      ? row.nextElementSibling
      : event.key === 'ArrowUp'
        ? row.previousElementSibling
        : null;
  if (neighbour instanceof HTMLElement) {
    event.preventDefault();
    neighbour.focus();
    if (follow) select(neighbour.dataset.studyUid as string);
  }
}
