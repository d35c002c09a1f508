/** Finds people, or groups, by a part of their name; two letters at least, as the server demands. */
import { Select } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type Candidate, findCandidates } from '../../api/projects';

const TYPING_PAUSE_MS = 250;
const LEAST_LETTERS = 2;

interface Props {
  projectId: string;
  kind: Candidate['kind'];
  chosen: Candidate | null;
  onChoose: (candidate: Candidate | null) => void;
}

export function PersonPicker({ projectId, kind, chosen, onChoose }: Props) {
  const { t } = useTranslation();
  const [search, setSearch] = useState('');
  const [settled] = useDebouncedValue(search.trim(), TYPING_PAUSE_MS);
  const wanted = chosen !== null && settled === nameOf(chosen) ? '' : settled;
  const found = useQuery({
    queryKey: ['candidates', projectId, wanted],
    queryFn: ({ signal }) => findCandidates(projectId, wanted, signal),
    enabled: wanted.length >= LEAST_LETTERS,
  });
  const candidates = (found.data ?? []).filter((one) => one.kind === kind && one.id !== chosen?.id);
  if (chosen !== null) candidates.unshift(chosen);
  return (
    <Select
      label={t(`members.find.${kind}`)}
      placeholder={t('members.findHint')}
      searchable
      clearable
      w={260}
      data-testid={`find-${kind}`}
      data={candidates.map((one) => ({ value: one.id, label: nameOf(one) }))}
      // The server has searched already, in the names that it knows and we do not show.
      filter={({ options }) => options}
      searchValue={search}
      onSearchChange={setSearch}
      nothingFoundMessage={
        wanted.length < LEAST_LETTERS
          ? t('members.typeMore')
          : found.isSuccess
            ? t('members.nobody')
            : t('members.searching')
      }
      value={chosen?.id ?? null}
      onChange={(id) => onChoose(candidates.find((one) => one.id === id) ?? null)}
    />
  );
}

export function nameOf(one: { name: string; display_name: string }): string {
  return one.display_name ? `${one.display_name} (${one.name})` : one.name;
}
