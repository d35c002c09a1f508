/** A study on screen: its series, one stack, and the work on it. */
import { Alert, Button, Center, Loader, Tabs, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useCallback, useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { listLabels, type ProjectLabel } from '../../api/annotations';
import { getMe } from '../../api/audit';
import { querySeries, queryStudy } from '../../api/dicom-web';
import { FailureNotice } from '../../components/failure-notice';
import { type DicomDataset, isoDateOf, numberOf, personNameOf, TAG, textOf } from '../../lib/dicom-json';
import { useStore } from '../../lib/store';
import { commandOf } from './actions';
import { AnnotationPanel } from './annotation-panel';
import { hasWebGl2, startEngine } from './engine';
import { HelpDialog } from './help-dialog';
import { useMaskLayers } from './mask-layers';
import type { ShownAnnotation } from './operations';
import type { Me, Reading } from './reading';
import { RunModel } from './run-model';
import { SegmentationPanel } from './segmentation-panel';
import { loadSeriesImages, type SeriesImages } from './series-images';
import { SeriesList } from './series-list';
import { StackPanel } from './stack-panel';
import type { StackView } from './stack-view';
import { StatusChip } from './status-chip';
import { CommandButton } from './toolbar';
import { useAnnotations, useReading, useWorkProjects } from './use-reading';
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

  const me = useQuery({ queryKey: ['me'], queryFn: getMe });
  const error = series.error ?? engine.error ?? me.error;
  if (error !== null) return <FailureNotice title={t('viewer.failed')} error={error} testId="viewer-error" />;
  if (!series.isSuccess || !engine.isSuccess || !me.isSuccess)
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
  return (
    <Study key={studyUid} studyUid={studyUid} study={study.data?.[0] ?? {}} series={images} me={me.data} />
  );
}

interface StudyProps {
  studyUid: string;
  study: DicomDataset;
  series: DicomDataset[];
  me: Me;
}

function Study({ studyUid, study, series, me }: StudyProps) {
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
  const [help, setHelp] = useState(false);
  const [going, setGoing] = useState<ShownAnnotation | null>(null);
  const reading = useReading(studyUid, me);
  const { panel } = useStore(reading.state);
  const work = useAnnotations(reading);
  const projects = useWorkProjects(studyUid);
  const project = projects.find((one) => one.permissions.includes('annotation.write')) ?? projects[0] ?? null;
  const labels = useQuery({
    queryKey: ['labels', project?.id],
    queryFn: ({ signal }) => listLabels(project?.id as string, signal),
    enabled: project !== null,
  });
  const layers = useMaskLayers(reading, images.data ?? null, seriesUid);
  const name = personNameOf(study, TAG.patientName) || textOf(study, TAG.patientId);
  const one = series.find((candidate) => textOf(candidate, TAG.seriesInstanceUid) === seriesUid) ?? {};
  const showHelp = useCallback(() => setHelp(true), []);

  // Overlays belong to the images of the stack: they come when it stands and go before it changes.
  useEffect(() => {
    if (shownSeries !== null && shownSeries !== seriesUid) setShownSeries(null);
  }, [shownSeries, seriesUid]);

  // An annotation on another series: first that one, then its image.
  useEffect(() => {
    if (going === null || shownSeries !== seriesUid || going.series_instance_uid !== seriesUid) return;
    const index = imageOf(going, images.data ?? null);
    if (index !== null) void view?.goTo(index);
    setGoing(null);
  }, [going, shownSeries, seriesUid, images.data, view]);

  const goTo = (annotation: ShownAnnotation) => {
    const target = annotation.series_instance_uid;
    if (target !== null && target !== seriesUid && seriesUids.includes(target)) choose(target);
    setGoing(annotation);
  };

  return (
    <div className={classes.page}>
      <div className={classes.bar}>
        <Text component="h1" fw={600} size="sm" truncate>
          {name}
        </Text>
        <Text size="xs" c="dimmed" truncate>
          {[isoDateOf(study, TAG.studyDate), textOf(study, TAG.studyDescription)].filter(Boolean).join(' · ')}
        </Text>
        <div className={classes.spacer} />
        <StatusChip reading={reading} />
        <Steps reading={reading} />
        <CommandButton command={commandOf('help')} onClick={showHelp} />
        <RunModel seriesUid={seriesUid} projects={projects} />
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
          reading={reading}
          layers={layers}
          annotations={work.annotations}
          labels={labels.data ?? NO_LABELS}
          projectId={project?.permissions.includes('annotation.write') ? project.id : null}
          texts={[
            name,
            isoDateOf(study, TAG.studyDate),
            [textOf(one, TAG.modality), textOf(one, TAG.seriesDescription)].filter(Boolean).join(' · '),
          ]}
          onView={setView}
          onShown={setShownSeries}
          onHelp={showHelp}
        />
        <aside className={classes.side} aria-label={t('viewer.work')}>
          <Tabs
            value={panel}
            onChange={(next) => reading.state.update({ panel: next as typeof panel })}
            keepMounted
            classNames={{ panel: classes.tab }}
          >
            <Tabs.List grow>
              <Tabs.Tab value="segmentations" data-testid="tab-segmentations">
                {t('segmentation.title')}
              </Tabs.Tab>
              <Tabs.Tab value="annotations" data-testid="tab-annotations">
                {t('annotation.title')}
                {work.annotations.length > 0 && ` ${work.annotations.length}`}
              </Tabs.Tab>
            </Tabs.List>
            <Tabs.Panel value="segmentations">
              <SegmentationPanel
                key={seriesUid}
                reading={reading}
                seriesUid={seriesUid}
                view={shownSeries === seriesUid ? view : null}
                images={images.data ?? null}
                project={project}
              />
            </Tabs.Panel>
            <Tabs.Panel value="annotations">
              <AnnotationPanel
                {...work}
                reading={reading}
                labels={labels.data ?? NO_LABELS}
                project={project}
                sliceOf={(annotation) =>
                  annotation.series_instance_uid === seriesUid
                    ? imageOf(annotation, images.data ?? null)
                    : null
                }
                onGoTo={goTo}
              />
            </Tabs.Panel>
          </Tabs>
        </aside>
      </div>
      <HelpDialog opened={help} onClose={() => setHelp(false)} />
    </div>
  );
}

function Steps({ reading }: { reading: Reading }) {
  const { canUndo, canRedo } = useStore(reading.history.state);
  return (
    <div className={classes.steps}>
      <CommandButton command={commandOf('undo')} disabled={!canUndo} onClick={() => reading.history.undo()} />
      <CommandButton command={commandOf('redo')} disabled={!canRedo} onClick={() => reading.history.redo()} />
    </div>
  );
}

const NO_LABELS: readonly ProjectLabel[] = [];

function imageOf(annotation: ShownAnnotation, images: SeriesImages | null): number | null {
  const index = (images?.places ?? []).findIndex(
    (place) =>
      place.sopInstanceUid === annotation.sop_instance_uid &&
      (place.frameNumber ?? 1) === (annotation.frame_number ?? 1),
  );
  return index < 0 ? null : index;
}
