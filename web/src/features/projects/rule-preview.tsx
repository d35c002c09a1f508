/** What a chosen member sees under the saved rules, and would see under those of the draft. */
import { Loader, Select, Text } from '@mantine/core';
import { useDebouncedValue } from '@mantine/hooks';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type Member, type NewRule, type PreviewStudy, previewRules } from '../../api/projects';
import { FailureNotice } from '../../components/failure-notice';
import { Section } from '../../components/section';
import classes from './projects.module.css';

const PAUSE_MS = 200;

interface Props {
  projectId: string;
  members: Member[];
  saved: NewRule[];
  draft: NewRule[];
}

export function RulePreview({ projectId, members, saved, draft }: Props) {
  const { t } = useTranslation();
  const [chosen, setChosen] = useState<string | null>(null);
  const userId = chosen ?? members[0]?.user_id ?? '';
  const [settled] = useDebouncedValue(draft, PAUSE_MS);
  const asked = (rules: NewRule[]) => ({
    queryKey: ['rule-preview', projectId, userId, rules],
    queryFn: ({ signal }: { signal: AbortSignal }) => previewRules(projectId, userId, rules, signal),
    enabled: userId !== '',
    placeholderData: keepPreviousData,
  });
  const now = useQuery(asked(saved));
  const then = useQuery(asked(settled));
  const error = now.error ?? then.error;
  return (
    <Section title={t('rules.preview')} hint={t('rules.previewHint')}>
      <Select
        mt="sm"
        searchable
        allowDeselect={false}
        label={t('rules.previewOf')}
        data-testid="preview-person"
        data={members.map((one) => ({ value: one.user_id, label: one.display_name || one.username }))}
        value={userId || null}
        onChange={setChosen}
      />
      {error !== null && (
        <FailureNotice
          title={t('rules.previewFailed')}
          error={error}
          onRetry={() => {
            void now.refetch();
            void then.refetch();
          }}
        />
      )}
      {(now.isLoading || then.isLoading) && (
        <Loader size="sm" mt="sm" aria-label={t('rules.previewLoading')} />
      )}
      {now.data && then.data && (
        <>
          <div
            className={classes.change}
            data-testid="preview-counts"
            data-settled={(!then.isFetching && settled === draft) || undefined}
          >
            {(['studies', 'series', 'instances'] as const).map((what) => (
              <Change key={what} label={t(`studies.${what}`)} now={now.data[what]} then={then.data[what]} />
            ))}
          </div>
          <Seen now={now.data.items} then={then.data.items} />
        </>
      )}
    </Section>
  );
}

function Change({ label, now, then }: { label: string; now: number; then: number }) {
  return (
    <>
      <span>{label}</span>
      <b>{now}</b>
      <span aria-hidden="true">→</span>
      <Text span fw={700} c={then < now ? 'red' : then > now ? 'teal' : undefined} inherit>
        {then}
      </Text>
    </>
  );
}

function Seen({ now, then }: { now: PreviewStudy[]; then: PreviewStudy[] }) {
  const { t } = useTranslation();
  const after = new Set(then.map((one) => one.study_instance_uid));
  const gone = now.filter((one) => !after.has(one.study_instance_uid));
  if (then.length + gone.length === 0)
    return (
      <Text size="sm" c="dimmed" data-testid="preview-nothing">
        {t('rules.previewNothing')}
      </Text>
    );
  return (
    <div className={classes.seen} data-testid="preview-studies">
      {then.map((one) => (
        <SeenStudy key={one.study_instance_uid} study={one} />
      ))}
      {gone.map((one) => (
        <SeenStudy key={one.study_instance_uid} study={one} gone />
      ))}
    </div>
  );
}

function SeenStudy({ study, gone }: { study: PreviewStudy; gone?: boolean }) {
  const { t } = useTranslation();
  return (
    <div className={classes.seenStudy}>
      <span className={gone ? classes.gone : undefined}>
        {study.study_description || t('rules.undescribed')}{' '}
        <Text span size="xs" c="dimmed">
          {study.study_date}
        </Text>
      </span>
      <Text span size="xs" c="dimmed" style={{ whiteSpace: 'nowrap' }}>
        {gone ? t('rules.hidden') : t('viewer.imageCount', { count: study.instances })}
      </Text>
    </div>
  );
}
