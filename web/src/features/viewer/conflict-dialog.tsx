/** Somebody else was faster, or the server said no: both sides, and a person decides. Nothing is thrown away unasked. */
import { Button, Group, Modal, Stack, Text } from '@mantine/core';
import { useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import type { Annotation, Patch } from '../../api/annotations';
import classes from './conflict-dialog.module.css';
import { MaskConflict } from './mask-conflict';
import type { Operation, Work } from './operations';
import type { Reading } from './reading';

interface Props {
  reading: Reading;
  operation: Operation;
  onClose: () => void;
}

export function ConflictDialog({ reading, operation, onClose }: Props) {
  const { t } = useTranslation();
  const slug = operation.refused?.slug ?? '';
  const raced = slug === 'edit-conflict' || slug === 'precondition-failed';
  return (
    <Modal
      opened
      onClose={onClose}
      size="lg"
      title={t(raced ? 'conflict.title' : 'conflict.refusedTitle')}
      closeButtonProps={{ 'aria-label': t('app.close') }}
    >
      <div data-testid="conflict">
        {raced && operation.kind === 'masks.save' ? (
          <MaskConflict reading={reading} operation={operation} onClose={onClose} />
        ) : raced ? (
          <AnnotationConflict reading={reading} operation={operation} onClose={onClose} />
        ) : (
          <Refused reading={reading} operation={operation} onClose={onClose} />
        )}
      </div>
    </Modal>
  );
}

/** Not a race: the server does not take it. It may be sent again, when the reason is gone, or given up. */
function Refused({ reading, operation, onClose }: Props) {
  const { t } = useTranslation();
  const { id: _, refused, ...rest } = operation;
  return (
    <Stack gap="sm">
      <Text size="sm">{refused?.message}</Text>
      <Text size="xs" c="dimmed">
        {t('conflict.refusedHint')}
      </Text>
      <Group justify="flex-end">
        <Button
          variant="default"
          color="red"
          data-testid="discard"
          onClick={() => {
            reading.outbox.resolve(operation, null);
            if (operation.kind === 'masks.save') reading.closeMasks(operation.object);
            onClose();
          }}
        >
          {t('conflict.discard')}
        </Button>
        <Button
          data-testid="try-again"
          onClick={() => {
            reading.outbox.resolve(operation, rest as Work);
            onClose();
          }}
        >
          {t('app.retry')}
        </Button>
      </Group>
    </Stack>
  );
}

function AnnotationConflict({ reading, operation, onClose }: Props) {
  const { t } = useTranslation();
  const cache = useQueryClient();
  const problem = operation.refused?.problem as {
    current?: Annotation;
    current_version?: number;
    changed_by?: string;
    mergeable?: boolean;
    merged?: Patch;
  };
  const base = problem.current_version ?? problem.current?.version ?? 0;
  const mine = operation.kind === 'annotation.edit' ? operation.patch : null;
  const decide = (work: Work | null) => {
    reading.outbox.resolve(operation, work);
    void cache.invalidateQueries({ queryKey: reading.annotationsKey });
    onClose();
  };
  return (
    <Stack gap="sm">
      <Text size="sm">{t('conflict.by', { name: problem.changed_by ?? '?' })}</Text>
      <div className={classes.sides}>
        <Side title={t('conflict.mine')} rows={rowsOf(mine, t)} empty={t('conflict.deletion')} />
        <Side
          title={t('conflict.theirs')}
          rows={rowsOf(problem.current ?? null, t)}
          empty={t('conflict.deletion')}
        />
      </div>
      <Group justify="flex-end">
        <Button variant="default" data-testid="take-theirs" onClick={() => decide(null)}>
          {t('conflict.takeTheirs')}
        </Button>
        {problem.mergeable && problem.merged && (
          <Button
            variant="default"
            data-testid="merge"
            onClick={() => decide({ kind: 'annotation.edit', base, patch: problem.merged as Patch })}
          >
            {t('conflict.merge')}
          </Button>
        )}
        <Button
          data-testid="keep-mine"
          onClick={() =>
            decide(
              mine === null
                ? { kind: 'annotation.delete', base }
                : { kind: 'annotation.edit', base, patch: mine },
            )
          }
        >
          {t('conflict.keepMine')}
        </Button>
      </Group>
    </Stack>
  );
}

function rowsOf(content: Patch | Annotation | null, t: (key: string) => string): [string, string][] {
  if (content === null) return [];
  const rows: [string, string][] = [];
  if (content.label !== undefined)
    rows.push([
      t('annotation.label'),
      typeof content.label === 'string' ? content.label : (content.label?.meaning ?? '–'),
    ]);
  if (content.description !== undefined) rows.push([t('annotation.text'), content.description || '–']);
  if (content.geometry !== undefined)
    rows.push([
      t('conflict.shape'),
      (content.geometry.points ?? [])
        .slice(0, 4)
        .map((point) => `(${point.map((one) => one.toFixed(1)).join(', ')})`)
        .join(' '),
    ]);
  return rows;
}

function Side({ title, rows, empty }: { title: string; rows: [string, string][]; empty: string }) {
  return (
    <section className={classes.side}>
      <h3 className={classes.title}>{title}</h3>
      {rows.length === 0 && <Text size="sm">{empty}</Text>}
      <dl className={classes.rows}>
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
