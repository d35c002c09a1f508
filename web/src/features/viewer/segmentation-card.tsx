/** One segmentation: its segments, its state and who may move it on, its history. */
import { ActionIcon, Badge, Button, Menu, Tooltip } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Segmentation } from '../../api/client';
import { changeState, type SegmentationState } from '../../api/masks';
import type { WorkProject } from '../../api/work-project';
import { FailureNotice } from '../../components/failure-notice';
import { EyeIcon, EyeOffIcon } from '../../components/icons';
import { Store, useStore } from '../../lib/store';
import { compareSegmentations } from './compare-masks';
import { DotsIcon, HistoryIcon, PlusIcon } from './icons';
import { imagesOfSlices, previewOf } from './mask-layers';
import type { MaskSession, MaskState } from './mask-session';
import type { Reading } from './reading';
import { SegmentRow } from './segment-row';
import classes from './segmentation-panel.module.css';
import type { SeriesImages } from './series-images';
import type { StackView } from './stack-view';
import { VersionsDialog } from './versions-dialog';

interface Props {
  reading: Reading;
  segmentation: Segmentation;
  others: readonly Segmentation[];
  images: SeriesImages | null;
  view: StackView | null;
  project: WorkProject | null;
  shownAtFirst: boolean;
}

const EDITABLE: readonly SegmentationState[] = ['proposal', 'draft'];
const CLOSED = new Store<MaskState | null>(null);
const COLORS = [
  '#e6194b',
  '#3cb44b',
  '#ffe119',
  '#4363d8',
  '#f58231',
  '#42d4f4',
  '#f032e6',
  '#fabed4',
  '#469990',
  '#dcbeff',
];

/** From a state to the next, how the step is called, and whether it takes a reviewer. */
const STEPS: Record<SegmentationState, readonly { to: SegmentationState; step: string; reviews?: true }[]> = {
  proposal: [
    { to: 'draft', step: 'accept' },
    { to: 'rejected', step: 'reject' },
  ],
  draft: [{ to: 'submitted', step: 'submit' }],
  submitted: [
    { to: 'approved', step: 'approve', reviews: true },
    { to: 'rejected', step: 'reject', reviews: true },
    { to: 'draft', step: 'reopen' },
  ],
  approved: [{ to: 'draft', step: 'reopen', reviews: true }],
  rejected: [{ to: 'draft', step: 'reopen' }],
};

export function SegmentationCard(props: Props) {
  const { t } = useTranslation();
  const { reading, segmentation, others, images, view, project } = props;
  const cache = useQueryClient();
  const session = useStore(reading.sessions).get(segmentation.id);
  const state = useStore<MaskState | null>((session?.state as Store<MaskState | null> | undefined) ?? CLOSED);
  const { active } = useStore(reading.state);
  const pending = useStore(reading.outbox.state).log.some((one) => one.object === segmentation.id);
  const [wanted, setWanted] = useState(props.shownAtFirst);
  const [history, setHistory] = useState(false);
  const opening = useMutation({ mutationFn: () => reading.openMasks(segmentation) });
  const open = opening.mutate;

  useEffect(() => {
    if (wanted && session === undefined) open();
  }, [wanted, session, open]);

  // Somebody else saved: what is not drawn on is read anew; what is, meets theirs when it is sent.
  useEffect(() => {
    if (state !== null && !pending && segmentation.version > state.version)
      void reading.reopenMasks(segmentation);
  }, [state, pending, segmentation, reading]);

  // What was just opened or made is what one wants to see.
  const went = useRef(!props.shownAtFirst);
  useEffect(() => {
    if (went.current || view === null || images === null || session === undefined) return;
    went.current = true;
    goToDensest(session, session.volume.segmentNumbers, images, view);
  }, [view, images, session]);

  const moving = useMutation({
    mutationFn: (to: SegmentationState) => changeState(segmentation.id, segmentation.version, to),
    onSuccess: (changed) => {
      session?.saved(changed);
      reading.putSegmentation(changed);
    },
    onError: () => void cache.invalidateQueries({ queryKey: ['segmentations'] }),
  });
  const comparing = useMutation({
    mutationFn: (other: Segmentation) => compareSegmentations(session as MaskSession, other, t),
    onSuccess: (preview) => previewOf(reading).set(preview),
  });

  const name = segmentation.label || t('segmentation.title');
  const shown = state?.segments.some((one) => one.visible) ?? false;
  const editable =
    EDITABLE.includes(segmentation.state) && (project?.permissions.includes('segmentation.write') ?? false);
  const reviews = project?.permissions.includes('review') ?? false;
  const steps = STEPS[segmentation.state].filter((one) => !one.reviews || reviews);
  const error = opening.error ?? moving.error ?? comparing.error;
  const add = () => {
    if (session === undefined || state === null) return;
    const segmentNumber = Math.max(0, ...state.segments.map((one) => one.segmentNumber)) + 1;
    const color = COLORS[(segmentNumber - 1) % COLORS.length] ?? '#e6194b';
    const label = t('segmentation.segmentName', { number: segmentNumber });
    reading.describe(session, [
      ...state.segments,
      { segmentNumber, label, meaning: label, color, volumeMm3: 0, voxels: 0, visible: true, locked: false },
    ]);
    reading.state.update({ active: { segmentationId: segmentation.id, segmentNumber } });
  };

  return (
    <section
      className={classes.card}
      data-testid="segmentation"
      data-drawn={session !== undefined && view !== null}
      data-state={segmentation.state}
      data-version={state?.version ?? segmentation.version}
    >
      <header className={classes.head}>
        <ActionIcon
          size="sm"
          variant="subtle"
          color="gray"
          aria-label={t(shown ? 'segmentation.hide' : 'segmentation.show', { label: name })}
          loading={opening.isPending}
          data-testid="segmentation-visibility"
          onClick={() => (session === undefined ? setWanted(true) : session.showAll(!shown))}
        >
          {shown ? <EyeIcon /> : <EyeOffIcon />}
        </ActionIcon>
        <span className={classes.name} title={name}>
          {name}
        </span>
        <Badge
          size="xs"
          variant={segmentation.state === 'proposal' ? 'outline' : 'light'}
          color={segmentation.state === 'approved' ? 'teal' : 'gray'}
        >
          {t(`segmentation.state.${segmentation.state}`)}
        </Badge>
      </header>
      {error !== null && <FailureNotice title={t('segmentation.masksFailed')} error={error} />}
      {segmentation.state === 'proposal' && <p className={classes.hint}>{t('segmentation.proposalHint')}</p>}
      <ul className={classes.segments}>
        {state?.segments.map((segment) => (
          <SegmentRow
            key={segment.segmentNumber}
            segment={segment}
            editable={editable}
            chosen={
              active?.segmentationId === segmentation.id && active.segmentNumber === segment.segmentNumber
            }
            onChoose={() =>
              reading.state.update({
                active: { segmentationId: segmentation.id, segmentNumber: segment.segmentNumber },
              })
            }
            onChange={(part) => session?.change(segment.segmentNumber, part)}
            onDescribe={(part) =>
              session &&
              reading.describe(
                session,
                state.segments.map((one) => (one === segment ? { ...one, ...part } : one)),
              )
            }
            onGoTo={() =>
              session && images && view && goToDensest(session, [segment.segmentNumber], images, view)
            }
          />
        ))}
      </ul>
      <div className={classes.steps}>
        {steps.map(({ to, step }, index) => (
          <Button
            key={step}
            size="compact-xs"
            variant={index === 0 ? 'light' : 'default'}
            disabled={pending}
            loading={moving.isPending && moving.variables === to}
            data-testid={`step-${step}`}
            onClick={() => moving.mutate(to)}
          >
            {t(`segmentation.step.${step}`)}
          </Button>
        ))}
        <span className={classes.name} />
        {editable && session !== undefined && (
          <Tooltip label={t('segmentation.addSegment')}>
            <ActionIcon
              size="sm"
              variant="subtle"
              color="gray"
              aria-label={t('segmentation.addSegment')}
              data-testid="add-segment"
              onClick={add}
            >
              <PlusIcon />
            </ActionIcon>
          </Tooltip>
        )}
        <Tooltip label={t('segmentation.history')}>
          <ActionIcon
            size="sm"
            variant="subtle"
            color="gray"
            aria-label={t('segmentation.history')}
            data-testid="open-history"
            onClick={() => setHistory(true)}
          >
            <HistoryIcon />
          </ActionIcon>
        </Tooltip>
        {others.length > 0 && session !== undefined && (
          <Menu position="bottom-end">
            <Menu.Target>
              <ActionIcon
                size="sm"
                variant="subtle"
                color="gray"
                aria-label={t('segmentation.compare')}
                loading={comparing.isPending}
                data-testid="compare"
              >
                <DotsIcon />
              </ActionIcon>
            </Menu.Target>
            <Menu.Dropdown>
              <Menu.Label>{t('segmentation.compare')}</Menu.Label>
              {others.map((other) => (
                <Menu.Item key={other.id} onClick={() => comparing.mutate(other)}>
                  {other.label || t('segmentation.title')} ·{' '}
                  {t('segmentation.version', { version: other.version })}
                </Menu.Item>
              ))}
            </Menu.Dropdown>
          </Menu>
        )}
      </div>
      {history && session !== undefined && (
        <VersionsDialog
          reading={reading}
          session={session}
          segmentation={segmentation}
          editable={editable && !pending}
          onClose={() => setHistory(false)}
        />
      )}
    </section>
  );
}

function goToDensest(
  session: MaskSession,
  segmentNumbers: readonly number[],
  images: SeriesImages,
  view: StackView,
): void {
  const slice = session.volume.densestSlice(segmentNumbers);
  const image = slice === null ? -1 : (imagesOfSlices(session.volume, images)[slice] ?? -1);
  if (image >= 0) void view.goTo(image);
}
