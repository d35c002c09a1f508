/** What each member sees of each study or series, and why; a cell makes an exception for one person. */
import { Group, Loader, SegmentedControl, Text, TextInput } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useInfiniteQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type AccessCell, changeDataMatrix, getDataMatrix } from '../../api/matrices';
import { useMatrixChanges } from '../../components/matrix-changes';
import { MatrixGrid } from '../../components/matrix-grid';
import grid from '../../components/matrix-grid.module.css';
import { Section } from '../../components/section';
import type { TabProps } from './access';
import { useLabel } from './use-roles';

const TYPING_PAUSE_MS = 300;
const NO_RULE = '';
const RULES = ['ALLOW', 'DENY', 'LIMIT'] as const;
const TONES: Record<AccessCell['access'], string> = {
  full: 'good',
  read_only: 'good',
  limited: 'some',
  none: 'none',
};

export function AccessTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const label = useLabel();
  const [level, setLevel] = useState<'study' | 'series'>('study');
  const [search, setSearch] = useState('');
  const [settled] = useDebouncedValue(search.trim(), TYPING_PAUSE_MS);
  const matrix = useInfiniteQuery({
    queryKey: ['data-matrix', project.id, level, settled],
    queryFn: ({ pageParam, signal }) => getDataMatrix(project.id, level, settled, pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.rows.next ?? null,
    placeholderData: keepPreviousData,
  });
  const pages = matrix.data?.pages ?? [];
  const rows = pages.flatMap((page) => page.rows.items);
  const cells = pages.flatMap((page) => page.cells);
  const people = pages[0]?.columns.items ?? [];
  const changes = useMatrixChanges<string>(
    (reason, changed) =>
      changeDataMatrix(
        project.id,
        reason,
        changed.map(([key, rule]) => {
          const [study_instance_uid, series_instance_uid, user_id] = key.split(' ') as [
            string,
            string,
            string,
          ];
          return {
            user_id,
            study_instance_uid,
            series_instance_uid: series_instance_uid || null,
            rule: rule === NO_RULE ? null : (rule as (typeof RULES)[number]),
          };
        }),
      ),
    async () => {
      await client.invalidateQueries({ queryKey: ['data-matrix', project.id] });
      await client.invalidateQueries({ queryKey: ['rules', project.id] });
    },
  );
  return (
    <Section title={t('matrix.data')} hint={t('matrix.dataHint')} error={matrix.error}>
      <Group gap="sm" my="sm">
        <SegmentedControl
          aria-label={t('rules.level')}
          value={level}
          onChange={(value) => setLevel(value as typeof level)}
          data={[
            { value: 'study', label: t('rules.levels.STUDY') },
            { value: 'series', label: t('rules.levels.SERIES') },
          ]}
        />
        <TextInput
          w={220}
          placeholder={t('matrix.findPerson')}
          aria-label={t('matrix.findPerson')}
          value={search}
          onChange={(event) => setSearch(event.currentTarget.value)}
        />
        {matrix.isFetching && <Loader size="xs" aria-label={t('matrix.loading')} />}
      </Group>
      {changes.bar}
      {matrix.isSuccess && rows.length * people.length === 0 && (
        <Text c="dimmed" ta="center" p="xl">
          {t('matrix.noData')}
        </Text>
      )}
      {rows.length * people.length > 0 && (
        <MatrixGrid
          label={t('matrix.data')}
          corner={t(level === 'study' ? 'data.title' : 'matrix.seriesCount', {
            count: pages[0]?.rows.total ?? rows.length,
          })}
          rows={rows.map((one) => ({
            key: `${one.study_instance_uid} ${one.series_instance_uid ?? ''}`,
            title: one.description || t('rules.undescribed'),
            hint: [one.modality.replaceAll('\\', ', '), one.study_date].filter(Boolean).join(' · '),
          }))}
          columns={people.map((one) => {
            const role = access.roleNamed(one.role);
            return {
              key: one.user_id,
              title: one.display_name || one.username,
              hint: role ? label(role.label) : one.role,
            };
          })}
          onNearEnd={matrix.hasNextPage && !matrix.isFetching ? () => void matrix.fetchNextPage() : undefined}
          cell={(row, column) => {
            const data = rows[row];
            const person = people[column];
            const cell = cells[row]?.[column];
            if (data === undefined || person === undefined || cell === undefined) return null;
            const key = `${data.study_instance_uid} ${data.series_instance_uid ?? ''} ${person.user_id}`;
            const before = cell.rule ?? NO_RULE;
            const value = changes.changed(key) ?? before;
            const refusal = changes.refusal(key);
            return (
              <select
                className={grid.choice}
                aria-label={`${data.description}, ${person.display_name || person.username}`}
                title={refusal ?? t(`matrix.why.${cell.reason}`)}
                data-tone={TONES[cell.access]}
                data-changed={changes.changed(key) !== undefined || undefined}
                data-refused={refusal !== undefined || undefined}
                value={value}
                onChange={(event) => changes.set(key, event.currentTarget.value, before)}
              >
                <option value={NO_RULE}>
                  {t(before === NO_RULE ? `matrix.access.${cell.access}` : 'matrix.noException')}
                </option>
                {RULES.map((rule) => (
                  <option key={rule} value={rule}>
                    {t(`matrix.exceptions.${rule}`)}
                  </option>
                ))}
              </select>
            );
          }}
        />
      )}
      <Text size="xs" c="dimmed" mt="xs">
        {t('matrix.keys')}
      </Text>
    </Section>
  );
}
