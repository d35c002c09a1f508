/** One's uploads as the server has them, from wherever they came. */
import { Badge, Button, Collapse, Group, Loader, Text } from '@mantine/core';
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { getUpload, listUploads, removeUpload, type Upload } from '../../api/uploads';
import { ConfirmButton } from '../../components/confirm-button';
import { FailureNotice } from '../../components/failure-notice';
import { Section } from '../../components/section';
import { useDay } from '../../lib/day';
import { useFigures } from './figures';
import type { FileState } from './messages';
import { reasonOfProblem } from './problem';
import { reasonText } from './reason-text';
import classes from './upload.module.css';

const PAGE = 20;
/** Lines of one upload's files that are drawn; the rest is told as a number. */
const MOST_LINES = 200;
const LOOK_AGAIN_MS = 3000;
export const UPLOADS_KEY = ['uploads'];
const MOVING = new Set(['receiving', 'verifying', 'ingesting']);
const COLORS: Record<string, string> = { stored: 'teal', failed: 'red', receiving: 'gray' };

/** `busy`: this tab makes new ones at the moment. */
export function EarlierUploads({ busy }: { busy: boolean }) {
  const { t } = useTranslation();
  const uploads = useInfiniteQuery({
    queryKey: UPLOADS_KEY,
    queryFn: ({ pageParam }) => listUploads(pageParam, PAGE),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next,
    refetchInterval: (query) =>
      busy || query.state.data?.pages.some((page) => page.items.some((one) => MOVING.has(one.state)))
        ? LOOK_AGAIN_MS
        : false,
  });
  const items = uploads.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Section title={t('upload.earlier')} hint={t('upload.earlierHint')}>
      {uploads.isLoading && <Loader size="sm" mt="sm" aria-label={t('upload.loading')} />}
      {uploads.error !== null && (
        <FailureNotice
          title={t('upload.listFailed')}
          error={uploads.error}
          onRetry={() => void uploads.refetch()}
          testId="uploads-error"
        />
      )}
      {uploads.isSuccess && items.length === 0 && !busy && (
        <Text size="sm" c="dimmed" ta="center" py="lg" data-testid="uploads-empty">
          {t('upload.none')}
        </Text>
      )}
      {items.length > 0 && (
        <ul className={classes.uploads}>
          {items.map((upload) => (
            <UploadLine key={upload.id} upload={upload} />
          ))}
        </ul>
      )}
      {uploads.hasNextPage && (
        <Button
          size="compact-sm"
          variant="default"
          mt="xs"
          loading={uploads.isFetchingNextPage}
          onClick={() => void uploads.fetchNextPage()}
        >
          {t('upload.older')}
        </Button>
      )}
    </Section>
  );
}

function UploadLine({ upload }: { upload: Upload }) {
  const { t } = useTranslation();
  const day = useDay();
  const { size } = useFigures();
  const client = useQueryClient();
  const [open, setOpen] = useState(false);
  const removing = useMutation({
    mutationFn: () => removeUpload(upload.id),
    onSettled: () => client.invalidateQueries({ queryKey: UPLOADS_KEY }),
  });
  const receiving = upload.state === 'receiving';
  const facts = [
    day(upload.created_at),
    upload.length === null
      ? size(upload.offset)
      : receiving
        ? t('upload.bytesOf', { done: size(upload.offset), total: size(upload.length) })
        : size(upload.length),
    ...(upload.files_done > 0 ? [t('upload.fileCount', { count: upload.files_done })] : []),
  ];
  return (
    <li className={classes.upload} data-testid="upload-line" data-state={upload.state}>
      <Group justify="space-between" wrap="nowrap">
        <div className={classes.uploadText}>
          <Text size="sm" fw={500} truncate>
            {nameOf(upload.filename, t)}
          </Text>
          <Text size="xs" c="dimmed">
            {facts.join(' · ')}
          </Text>
        </div>
        <Group gap="xs" wrap="nowrap">
          <Badge variant="light" tt="none" color={COLORS[upload.state] ?? 'yellow'}>
            {t(`upload.serverState.${upload.state}`)}
          </Badge>
          <Button
            size="compact-sm"
            variant="default"
            aria-expanded={open}
            data-testid="upload-details"
            onClick={() => setOpen(!open)}
          >
            {t(open ? 'upload.hideDetails' : 'upload.details')}
          </Button>
          <ConfirmButton
            label={t('upload.remove')}
            question={t(receiving ? 'upload.removeOpenQuestion' : 'upload.removeQuestion')}
            testId="remove-upload"
            loading={removing.isPending}
            disabled={upload.state === 'verifying' || upload.state === 'ingesting'}
            onConfirm={() => removing.mutate()}
          />
        </Group>
      </Group>
      {removing.error && <FailureNotice title={t('upload.removeFailed')} error={removing.error} />}
      {upload.problem && (
        <Text size="xs" className={classes.problem}>
          {reasonText(reasonOfProblem(upload.problem), t)}
        </Text>
      )}
      <Collapse expanded={open}>{open && <UploadFiles id={upload.id} state={upload.state} />}</Collapse>
    </li>
  );
}

function UploadFiles({ id, state }: { id: string; state: string }) {
  const { t } = useTranslation();
  const upload = useQuery({ queryKey: ['upload', id, state], queryFn: () => getUpload(id) });
  if (upload.isLoading) return <Loader size="xs" my="xs" aria-label={t('upload.loading')} />;
  if (upload.error) return <FailureNotice title={t('upload.listFailed')} error={upload.error} />;
  const files = upload.data?.files ?? [];
  if (files.length === 0)
    return (
      <Text size="xs" c="dimmed" py="xs">
        {t(state === 'receiving' ? 'upload.receivingHint' : 'upload.noFilesIn')}
      </Text>
    );
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: who scrolls with keys must reach it
    <ul className={classes.uploadFiles} tabIndex={0} aria-label={t('upload.files')}>
      {files.slice(0, MOST_LINES).map((file) => (
        <li key={file.path} className={classes.uploadFile}>
          <span className={classes.uploadPath} title={file.path}>
            {file.path}
          </span>
          <span>{t(`upload.state.${file.state as FileState}`)}</span>
          {file.problem && (
            <span className={classes.problem}>{reasonText(reasonOfProblem(file.problem), t)}</span>
          )}
        </li>
      ))}
      {files.length > MOST_LINES && (
        <li className={classes.uploadFile}>{t('upload.andMore', { count: files.length - MOST_LINES })}</li>
      )}
    </ul>
  );
}

/** Packs of the upload page have no name of their own. */
function nameOf(filename: string, t: (key: string, values?: { count: number }) => string): string {
  const pack = /^pack of (\d+) files$/.exec(filename);
  if (pack) return t('upload.pack', { count: Number(pack[1]) });
  return filename || t('upload.unnamed');
}
