/** Records of the audit, the newest first, found by filters; what is found can leave as a file, with a reason. */
import { Badge, Button, Group, Loader, Select, Table, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useInfiniteQuery, useMutation } from '@tanstack/react-query';
import { Fragment, useState } from 'react';
import { useTranslation } from 'react-i18next';
import {
  type AuditLine,
  type AuditSearch,
  type ExportFormat,
  exportAudit,
  searchAudit,
} from '../../api/audit';
import { FailureNotice } from '../../components/failure-notice';
import { Section } from '../../components/section';
import { useStepUp } from '../../components/step-up';
import { useDay } from '../../lib/day';
import { saveFile } from '../../lib/save-file';
import classes from './audit.module.css';

interface Props {
  projects: { project_id: string; project_name: string }[];
}

const NOTHING: AuditSearch = {
  since: '',
  until: '',
  actor: '',
  action: '',
  object: '',
  patient: '',
  project_id: '',
  outcome: '',
  reason: '',
};
const TEXTS = ['actor', 'action', 'object', 'patient', 'reason'] as const;
const OUTCOMES = ['success', 'denied', 'not-found', 'failure'];
const OUTCOME_COLORS: Record<string, string> = { success: 'gray', denied: 'red', failure: 'orange' };
const FORMATS: ExportFormat[] = ['jsonl', 'dicom', 'fhir'];
const TYPING_PAUSE_MS = 400;
const MAX_REASON = 256;

export function AuditRecords({ projects }: Props) {
  const { t } = useTranslation();
  const [fields, setFields] = useState<AuditSearch>(NOTHING);
  const [settled] = useDebouncedValue(fields, TYPING_PAUSE_MS);
  const search = { ...settled, since: dayStart(settled.since), until: dayEnd(settled.until) };
  const records = useInfiniteQuery({
    queryKey: ['audit', search],
    queryFn: ({ pageParam, signal }) => searchAudit(search, pageParam, signal),
    initialPageParam: 0,
    getNextPageParam: (page) => (page.next ? Number(page.next) : null),
    placeholderData: keepPreviousData,
    // Each look is itself recorded: none of them happens by itself.
    staleTime: Number.POSITIVE_INFINITY,
  });
  const lines = records.data?.pages.flatMap((page) => page.items) ?? [];
  const change = (part: Partial<AuditSearch>) => setFields({ ...fields, ...part });
  return (
    <>
      <Section title={t('audit.search')} hint={t('audit.searchHint')}>
        <div className={classes.filters}>
          {(['since', 'until'] as const).map((name) => (
            <TextInput
              key={name}
              type="date"
              label={t(`audit.fields.${name}`)}
              value={fields[name]}
              onChange={(event) => change({ [name]: event.currentTarget.value })}
            />
          ))}
          {TEXTS.map((name) => (
            <TextInput
              key={name}
              label={t(`audit.fields.${name}`)}
              placeholder={t(`audit.examples.${name}`)}
              value={fields[name]}
              data-testid={`audit-${name}`}
              onChange={(event) => change({ [name]: event.currentTarget.value.trimStart() })}
            />
          ))}
          <Select
            label={t('audit.fields.project_id')}
            clearable
            searchable
            data={projects.map((one) => ({ value: one.project_id, label: one.project_name }))}
            value={fields.project_id || null}
            onChange={(value) => change({ project_id: value ?? '' })}
          />
          <Select
            label={t('audit.fields.outcome')}
            clearable
            data={OUTCOMES.map((value) => ({ value, label: t(`audit.outcomes.${value}`) }))}
            value={fields.outcome || null}
            onChange={(value) => change({ outcome: value ?? '' })}
          />
          <Group gap="xs" wrap="nowrap">
            <Button variant="default" onClick={() => setFields(NOTHING)}>
              {t('audit.clear')}
            </Button>
            <Button
              variant="default"
              loading={records.isFetching}
              data-testid="audit-refresh"
              onClick={() => void records.refetch()}
            >
              {t('audit.refresh')}
            </Button>
          </Group>
        </div>
        <ExportForm search={search} />
      </Section>
      {records.error !== null && (
        <FailureNotice
          title={t('audit.failed')}
          error={records.error}
          onRetry={() => void records.refetch()}
          testId="audit-error"
        />
      )}
      <Table.ScrollContainer minWidth={980}>
        <Table verticalSpacing={4} fz="sm" highlightOnHover data-testid="audit-records">
          <Table.Thead>
            <Table.Tr>
              {(['at', 'actor', 'action', 'object', 'patient', 'outcome', 'reason'] as const).map((name) => (
                <Table.Th key={name}>{t(`audit.fields.${name}`)}</Table.Th>
              ))}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {lines.map((line) => (
              <Record key={line.seq} line={line} projects={projects} />
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      {records.isLoading && <Loader size="sm" aria-label={t('audit.loading')} />}
      {records.isSuccess && lines.length === 0 && (
        <Text c="dimmed" ta="center" p="lg" data-testid="audit-empty">
          {t('audit.none')}
        </Text>
      )}
      {records.hasNextPage && (
        <Group justify="center" mt="sm">
          <Button
            variant="default"
            loading={records.isFetchingNextPage}
            onClick={() => void records.fetchNextPage()}
          >
            {t('audit.more')}
          </Button>
        </Group>
      )}
    </>
  );
}

function Record({ line, projects }: { line: AuditLine } & Props) {
  const { t } = useTranslation();
  const day = useDay();
  const [open, setOpen] = useState(false);
  const project = projects.find((one) => one.project_id === line.project_id);
  const { seq, at, actor, action, outcome, reason, object, patient, detail, ...rest } = line;
  return (
    <Fragment>
      <Table.Tr
        className={classes.record}
        tabIndex={0}
        aria-expanded={open}
        data-testid="audit-record"
        onClick={() => setOpen(!open)}
        onKeyDown={(event) => event.key === 'Enter' && setOpen(!open)}
      >
        <Table.Td className={classes.when}>{day(at)}</Table.Td>
        <Table.Td>{actor}</Table.Td>
        <Table.Td>{action}</Table.Td>
        <Table.Td className={`${classes.small} ${classes.short}`} title={object.id}>
          {[object.kind, project?.project_name ?? object.id].filter(Boolean).join(' ')}
        </Table.Td>
        <Table.Td className={`${classes.small} ${classes.pseudonym}`} title={patient}>
          {patient}
        </Table.Td>
        <Table.Td>
          <Badge variant="light" size="sm" tt="none" color={OUTCOME_COLORS[outcome] ?? 'gray'}>
            {t(`audit.outcomes.${outcome}`, { defaultValue: outcome })}
          </Badge>
        </Table.Td>
        <Table.Td className={classes.small}>{reason}</Table.Td>
      </Table.Tr>
      {open && (
        <Table.Tr>
          <Table.Td colSpan={7}>
            <pre className={classes.detail}>
              {JSON.stringify({ seq, object, ...rest, ...detail }, null, 2)}
            </pre>
          </Table.Td>
        </Table.Tr>
      )}
    </Fragment>
  );
}

function ExportForm({ search }: { search: AuditSearch }) {
  const { t } = useTranslation();
  const { fresh, dialog } = useStepUp();
  const [format, setFormat] = useState<ExportFormat>('jsonl');
  const [reason, setReason] = useState('');
  const exporting = useMutation({
    mutationFn: () => fresh(() => exportAudit(search, format, reason)),
    onSuccess: ({ name, file }) => saveFile(name, file),
  });
  return (
    <>
      <form
        className={classes.form}
        onSubmit={(event) => {
          event.preventDefault();
          exporting.mutate();
        }}
      >
        <Select
          label={t('audit.format')}
          w={210}
          allowDeselect={false}
          data={FORMATS.map((value) => ({ value, label: t(`audit.formats.${value}`) }))}
          value={format}
          onChange={(value) => setFormat((value ?? 'jsonl') as ExportFormat)}
        />
        <TextInput
          label={t('audit.exportReason')}
          flex={1}
          miw={220}
          maxLength={MAX_REASON}
          value={reason}
          data-testid="export-reason"
          onChange={(event) => setReason(event.currentTarget.value)}
        />
        <Button
          type="submit"
          disabled={!reason.trim()}
          loading={exporting.isPending}
          data-testid="export-audit"
        >
          {t('audit.export')}
        </Button>
      </form>
      {exporting.error !== null && <FailureNotice title={t('audit.exportFailed')} error={exporting.error} />}
      {dialog}
    </>
  );
}

const dayStart = (day: string) => (day ? new Date(`${day}T00:00:00`).toISOString() : '');
const dayEnd = (day: string) => (day ? new Date(`${day}T23:59:59.999`).toISOString() : '');
