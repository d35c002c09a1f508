/** What became of each study of a finished upload. */
import { Anchor, Button, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { queryStudiesByUid } from '../../api/dicom-web';
import { isoDateOf, personNameOf, TAG, textOf } from '../../lib/dicom-json';
import { useFigures } from './figures';
import classes from './upload.module.css';
import type { Uploading } from './uploading';

/** So many studies fit into one query's address. */
const PAGE = 20;
const STATES = ['stored', 'already', 'refused'] as const;

export function StudyReport({ upload }: { upload: Uploading }) {
  const { t } = useTranslation();
  const { count } = useFigures();
  const [shown, setShown] = useState(PAGE);
  const { counts, studies } = upload;
  const summary = (['stored', 'already', 'used', 'refused', 'skipped', 'lost'] as const)
    .filter((state) => counts[state] > 0)
    .map((state) => t(`upload.summary.${state}`, { count: counts[state], figure: count(counts[state]) }));
  const pages = Array.from({ length: Math.ceil(Math.min(shown, studies.length) / PAGE) }, (_, page) =>
    studies.slice(page * PAGE, Math.min(shown, (page + 1) * PAGE)),
  );
  return (
    <div data-testid="study-report">
      <Text size="sm">{summary.join(' · ')}</Text>
      {studies.length > 0 && (
        <h3 className={classes.reportTitle}>{t('upload.studies', { count: studies.length })}</h3>
      )}
      {pages.map((page) => (
        <StudyLines key={page[0]?.studyUid} studies={page} />
      ))}
      {shown < studies.length && (
        <Button size="compact-sm" variant="default" mt="xs" onClick={() => setShown(shown + PAGE)}>
          {t('upload.moreStudies', { count: studies.length - shown })}
        </Button>
      )}
    </div>
  );
}

function StudyLines({ studies }: { studies: Uploading['studies'] }) {
  const { t } = useTranslation();
  const { count } = useFigures();
  const uids = studies.map((one) => one.studyUid);
  const found = useQuery({
    queryKey: ['uploaded-studies', uids],
    queryFn: ({ signal }) => queryStudiesByUid(uids, signal),
  });
  return studies.map(({ studyUid, counts }) => {
    const study = found.data?.find((one) => textOf(one, TAG.studyInstanceUid) === studyUid);
    const name = study && personNameOf(study, TAG.patientName);
    const words = study && [isoDateOf(study, TAG.studyDate), textOf(study, TAG.studyDescription)];
    return (
      <div key={studyUid} className={classes.study} data-testid="reported-study">
        <div className={classes.studyText}>
          <Anchor component={Link} to={`/viewer/${studyUid}`} size="sm" fw={600} data-testid="open-study">
            {name || t('studies.unnamed')}
          </Anchor>
          <Text size="xs" c="dimmed" truncate>
            {words?.filter(Boolean).join(' · ')}
          </Text>
        </div>
        <Text size="sm" className={classes.facts}>
          {STATES.filter((state) => counts[state])
            .map((state) =>
              t(`upload.images.${state}`, { count: counts[state] ?? 0, figure: count(counts[state] ?? 0) }),
            )
            .join(' · ')}
        </Text>
      </div>
    );
  });
}
