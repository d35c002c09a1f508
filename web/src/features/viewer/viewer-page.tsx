/** A study on screen: its series, one stack, the segmentations over it. */
import { Alert, Button, Center, Loader, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { querySeries, queryStudy } from '../../api/dicom-web';
import { FailureNotice } from '../../components/failure-notice';
import { type DicomDataset, isoDateOf, numberOf, personNameOf, TAG, textOf } from '../../lib/dicom-json';
import { hasWebGl2, startEngine } from './engine';
import { RunModel } from './run-model';
import { SegmentationPanel } from './segmentation-panel';
import { loadSeriesImages } from './series-images';
import { SeriesList } from './series-list';
import { StackPanel } from './stack-panel';
import type { StackView } from './stack-view';
import classes from './viewer-page.module.css';

/** Objects that stand beside images; they have no pixels that a stack could show (SEG is shown as an overlay). */
const NOT_IMAGES = new Set(['SEG', 'SR', 'PR', 'KO', 'RTSTRUCT', 'RTPLAN', 'RTDOSE', 'REG', 'DOC', 'PLAN']);

export function ViewerPage() {
  const { t } = useTranslation();
  const { studyUid } = useParams({ from: '/signed-in/viewer/$studyUid' });
  const study = useQuery({
    queryKey: ['study', studyUid],
    queryFn: ({ signal }) => queryStudy(studyUid, signal),
  });
  const series = useQuery({
    queryKey: ['series', studyUid],
    queryFn: ({ signal }) => querySeries(studyUid, signal),
  });
  const engine = useQuery({
    queryKey: ['engine'],
    queryFn: async () => {
      await startEngine();
      return true;
    },
    staleTime: Number.POSITIVE_INFINITY,
  });

  const error = series.error ?? engine.error;
  if (error !== null) return <FailureNotice title={t('viewer.failed')} error={error} testId="viewer-error" />;
  if (!series.isSuccess || !engine.isSuccess)
    return (
      <Center h="100%">
        <Loader aria-label={t('viewer.loadingStudy')} />
      </Center>
    );
  const images = series.data
    .filter((one) => !NOT_IMAGES.has(textOf(one, TAG.modality)))
    .sort((a, b) => (numberOf(a, TAG.seriesNumber) ?? 0) - (numberOf(b, TAG.seriesNumber) ?? 0));
  if (images.length === 0)
    return (
      <Center h="100%">
        <Text c="dimmed">{t('viewer.noImages')}</Text>
      </Center>
    );
  return <Study studyUid={studyUid} study={study.data?.[0] ?? {}} series={images} />;
}

function Study({
  studyUid,
  study,
  series,
}: {
  studyUid: string;
  study: DicomDataset;
  series: DicomDataset[];
}) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const chosen = useSearch({ from: '/signed-in/viewer/$studyUid' }).series;
  const seriesUids = series.map((one) => textOf(one, TAG.seriesInstanceUid));
  const seriesUid = chosen !== undefined && seriesUids.includes(chosen) ? chosen : (seriesUids[0] as string);
  const choose = (next: string) =>
    void navigate({ to: '/viewer/$studyUid', params: { studyUid }, search: { series: next }, replace: true });

  const images = useQuery({
    queryKey: ['series-images', studyUid, seriesUid],
    queryFn: ({ signal }) => loadSeriesImages(studyUid, seriesUid, signal),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const [view, setView] = useState<StackView | null>(null);
  const [shownSeries, setShownSeries] = useState<string | null>(null);

  // Overlays are derived from the images of the stack: they come when it stands and go before it changes.
  useEffect(() => {
    if (shownSeries !== null && shownSeries !== seriesUid) setShownSeries(null);
  }, [shownSeries, seriesUid]);

  return (
    <div className={classes.page}>
      <div className={classes.bar}>
        <Text fw={600} size="sm" truncate>
          {personNameOf(study, TAG.patientName) || textOf(study, TAG.patientId)}
        </Text>
        <Text size="xs" c="dimmed" truncate>
          {[isoDateOf(study, TAG.studyDate), textOf(study, TAG.studyDescription)].filter(Boolean).join(' · ')}
        </Text>
        <div className={classes.spacer} />
        <RunModel studyUid={studyUid} seriesUid={seriesUid} />
        <Button
          size="compact-sm"
          variant="default"
          component="a"
          href={`/ohif/viewer?StudyInstanceUIDs=${studyUid}`}
          target="_blank"
          rel="noopener"
        >
          OHIF
        </Button>
      </div>
      {!hasWebGl2 && <Alert color="yellow">{t('viewer.noWebGl')}</Alert>}
      <div className={classes.body}>
        <SeriesList studyUid={studyUid} series={series} chosen={seriesUid} onChoose={choose} />
        <StackPanel
          images={images.data ?? null}
          seriesUid={seriesUid}
          error={images.error}
          onView={setView}
          onShown={setShownSeries}
        />
        <SegmentationPanel
          key={seriesUid}
          seriesUid={seriesUid}
          view={shownSeries === seriesUid && hasWebGl2 ? view : null}
          images={images.data ?? null}
        />
      </div>
    </div>
  );
}
