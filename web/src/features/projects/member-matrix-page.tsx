/** Who has which role in which project: cells are changed in place and saved together. */
import { Loader, Text, TextInput, Title } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { changeMemberMatrix, getMemberMatrix } from '../../api/matrices';
import { listRoles } from '../../api/projects';
import { FailureNotice } from '../../components/failure-notice';
import { useMatrixChanges } from '../../components/matrix-changes';
import { MatrixGrid } from '../../components/matrix-grid';
import grid from '../../components/matrix-grid.module.css';
import { nameOf } from './person-picker';
import classes from './projects.module.css';
import { useLabel } from './use-roles';

const TYPING_PAUSE_MS = 300;
const NOT_A_MEMBER = '';

export function MemberMatrixPage() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const label = useLabel();
  const [search, setSearch] = useState('');
  const [settled] = useDebouncedValue(search.trim(), TYPING_PAUSE_MS);
  const roles = useQuery({ queryKey: ['roles'], queryFn: () => listRoles() });
  const matrix = useInfiniteQuery({
    queryKey: ['member-matrix', settled],
    queryFn: ({ pageParam, signal }) => getMemberMatrix(settled, pageParam, signal),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.rows.next ?? null,
    placeholderData: keepPreviousData,
  });
  const pages = matrix.data?.pages ?? [];
  const people = pages.flatMap((page) => page.rows.items);
  const cells = pages.flatMap((page) => page.cells);
  const projects = pages[0]?.columns.items ?? [];
  const changes = useMatrixChanges<string>(
    (reason, changed) =>
      changeMemberMatrix(
        reason,
        changed.map(([key, role]) => {
          const [user_id, project_id] = key.split(' ') as [string, string];
          return { user_id, project_id, role: role === NOT_A_MEMBER ? null : role };
        }),
      ),
    async () => {
      await client.invalidateQueries({ queryKey: ['member-matrix'] });
      await client.invalidateQueries({ queryKey: ['members'] });
    },
  );
  const choices = (roles.data?.items ?? [])
    .filter((role) => role.scope === 'project')
    .map((role) => ({ value: role.name, label: label(role.label) }));
  const error = matrix.error ?? roles.error;
  return (
    <div className={classes.page}>
      <div className={classes.wideColumn}>
        <div className={classes.line}>
          <div>
            <Title order={1} size="h3">
              {t('matrix.members')}
            </Title>
            <Text size="xs" c="dimmed">
              {t('matrix.membersHint')}
            </Text>
          </div>
          <TextInput
            w={220}
            placeholder={t('matrix.findPerson')}
            aria-label={t('matrix.findPerson')}
            value={search}
            onChange={(event) => setSearch(event.currentTarget.value)}
          />
        </div>
        {changes.bar}
        {error !== null && (
          <FailureNotice
            title={t('matrix.failed')}
            error={error}
            onRetry={() => {
              void matrix.refetch();
              void roles.refetch();
            }}
          />
        )}
        {(matrix.isLoading || roles.isLoading) && <Loader size="sm" aria-label={t('matrix.loading')} />}
        {matrix.isSuccess && people.length * projects.length === 0 && (
          <Text c="dimmed" ta="center" p="xl">
            {t('matrix.noMembers')}
          </Text>
        )}
        {matrix.isSuccess && roles.isSuccess && people.length * projects.length > 0 && (
          <MatrixGrid
            label={t('matrix.members')}
            corner={t('matrix.counts', { rows: matrix.data.pages[0]?.rows.total ?? people.length })}
            rows={people.map((one) => ({
              key: one.user_id,
              title: one.display_name || one.username,
              hint: one.username,
            }))}
            columns={projects.map((one) => ({ key: one.id, title: one.name }))}
            onNearEnd={
              matrix.hasNextPage && !matrix.isFetching ? () => void matrix.fetchNextPage() : undefined
            }
            cell={(row, column) => {
              const person = people[row];
              const project = projects[column];
              if (person === undefined || project === undefined) return null;
              const cell = cells[row]?.[column] ?? null;
              const key = `${person.user_id} ${project.id}`;
              const before = cell?.role ?? NOT_A_MEMBER;
              const value = changes.changed(key) ?? before;
              const refusal = changes.refusal(key);
              const known = choices.some((one) => one.value === before) || before === NOT_A_MEMBER;
              return (
                <select
                  className={grid.choice}
                  aria-label={`${nameOf({ name: person.username, display_name: person.display_name })}, ${project.name}`}
                  title={refusal ?? (cell?.source === 'group' ? t('members.viaGroup') : undefined)}
                  disabled={cell?.source === 'group'}
                  data-tone={value === NOT_A_MEMBER ? 'none' : cell && !cell.valid ? 'some' : 'good'}
                  data-changed={changes.changed(key) !== undefined || undefined}
                  data-refused={refusal !== undefined || undefined}
                  value={value}
                  onChange={(event) => changes.set(key, event.currentTarget.value, before)}
                >
                  <option value={NOT_A_MEMBER}>–</option>
                  {!known && <option value={before}>{before}</option>}
                  {choices.map((one) => (
                    <option key={one.value} value={one.value}>
                      {one.label}
                    </option>
                  ))}
                </select>
              );
            }}
          />
        )}
        <Text size="xs" c="dimmed">
          {t('matrix.keys')}
        </Text>
      </div>
    </div>
  );
}
