/** Changes of a matrix that wait to be saved together: how many, why, and what became of each cell. */
import { Alert, Button, Text, TextInput } from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { RequestFailed } from '../api/failure';
import classes from './matrix-changes.module.css';

export interface CellOutcome {
  outcome: string;
  problem?: Record<string, unknown> | null;
}

export interface MatrixChanges<Value> {
  changed: (key: string) => Value | undefined;
  set: (key: string, value: Value, before: Value) => void;
  refusal: (key: string) => string | undefined;
  bar: React.ReactNode;
}

const MAX_REASON = 256;

export function useMatrixChanges<Value>(
  save: (reason: string, changes: [string, Value][]) => Promise<{ results: CellOutcome[] }>,
  onSaved: () => Promise<unknown>,
): MatrixChanges<Value> {
  const { t } = useTranslation();
  const [changes, setChanges] = useState<ReadonlyMap<string, Value>>(new Map());
  const [refusals, setRefusals] = useState<ReadonlyMap<string, string>>(new Map());
  const [reason, setReason] = useState('');
  const saving = useMutation({
    mutationFn: () => save(reason, [...changes]),
    onSuccess: async () => {
      setChanges(new Map());
      setRefusals(new Map());
      setReason('');
      await onSaved();
    },
    onError: (error) => setRefusals(refusalsOf(error, [...changes.keys()])),
  });
  const bar = (
    <>
      {changes.size > 0 && (
        <form
          className={classes.bar}
          onSubmit={(event) => {
            event.preventDefault();
            saving.mutate();
          }}
        >
          <Text size="sm" fw={600}>
            {t('matrix.changes', { count: changes.size })}
          </Text>
          <TextInput
            flex={1}
            miw={200}
            maxLength={MAX_REASON}
            placeholder={t('matrix.reason')}
            aria-label={t('matrix.reason')}
            data-testid="matrix-reason"
            value={reason}
            onChange={(event) => setReason(event.currentTarget.value)}
          />
          <Button
            variant="default"
            onClick={() => {
              setChanges(new Map());
              setRefusals(new Map());
              saving.reset();
            }}
          >
            {t('app.discard')}
          </Button>
          <Button
            type="submit"
            disabled={!reason.trim()}
            loading={saving.isPending}
            data-testid="save-matrix"
          >
            {t('matrix.save')}
          </Button>
        </form>
      )}
      {saving.error !== null && (
        <Alert color="red" variant="light" role="alert" data-testid="matrix-error">
          {refusals.size > 0
            ? t('matrix.refused', { count: refusals.size, why: [...new Set(refusals.values())].join(' ') })
            : saving.error.message}
        </Alert>
      )}
      {saving.isSuccess && changes.size === 0 && (
        <Alert color="teal" variant="light" role="status" data-testid="matrix-saved">
          {t('matrix.saved', {
            count: saving.data.results.filter((one) => one.outcome === 'changed').length,
          })}
        </Alert>
      )}
    </>
  );
  return {
    changed: (key) => changes.get(key),
    set: (key, value, before) => {
      const next = new Map(changes);
      if (value === before) next.delete(key);
      else next.set(key, value);
      setChanges(next);
      if (refusals.has(key)) setRefusals(new Map([...refusals].filter(([other]) => other !== key)));
    },
    refusal: (key) => refusals.get(key),
    bar,
  };
}

/** One refused cell keeps all from being written; the problem tells which, in the order of the request. */
function refusalsOf(error: Error, keys: string[]): Map<string, string> {
  const results = error instanceof RequestFailed ? error.problem.results : undefined;
  const found = new Map<string, string>();
  if (Array.isArray(results))
    (results as CellOutcome[]).forEach((one, index) => {
      const key = keys[index];
      if (one.outcome === 'refused' && key !== undefined)
        found.set(key, String(one.problem?.detail ?? one.problem?.title ?? ''));
    });
  return found;
}
