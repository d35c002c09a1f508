/** The segmentations of the shown series: each with its segments, volumes, visibility and opacity. */
import { ActionIcon, Badge, Loader, Slider, Text, UnstyledButton } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api, bodyOf, type Segment, type Segmentation } from '../../api/client';
import { fetchMasks } from '../../api/masks';
import { FailureNotice } from '../../components/failure-notice';
import { EyeIcon, EyeOffIcon, TargetIcon } from '../../components/icons';
import { LabelmapOverlay, type OverlaySegment } from './labelmap-overlay';
import classes from './segmentation-panel.module.css';
import type { SeriesImages } from './series-images';
import type { StackView } from './stack-view';

const MM3_PER_ML = 1000;
const FIRST_OPACITY = 0.3;

interface Props {
  seriesUid: string;
  images: SeriesImages | null;
  /** null until the stack shows this series, or where overlays cannot be drawn. */
  view: StackView | null;
}

export function SegmentationPanel({ seriesUid, images, view }: Props) {
  const { t } = useTranslation();
  const segmentations = useQuery({
    queryKey: ['segmentations', seriesUid],
    queryFn: ({ signal }) =>
      bodyOf(
        api.GET('/api/v1/segmentations', { params: { query: { series_instance_uid: seriesUid } }, signal }),
      ),
  });
  return (
    <aside className={classes.panel} aria-label={t('segmentation.title')} data-testid="segmentations">
      <h2 className={classes.title}>
        {t('segmentation.title')} {segmentations.isFetching && <Loader size={12} />}
      </h2>
      {segmentations.error !== null && (
        <FailureNotice
          title={t('segmentation.failed')}
          error={segmentations.error}
          onRetry={() => void segmentations.refetch()}
        />
      )}
      {segmentations.data?.items.length === 0 && (
        <Text size="sm" c="dimmed" px={12}>
          {t('segmentation.none')}
        </Text>
      )}
      {segmentations.data?.items.map((segmentation, index) => (
        <SegmentationCard
          key={`${segmentation.id}-${segmentation.version}`}
          segmentation={segmentation}
          images={images}
          view={view}
          // The server lists the newest first: that one is shown, older ones wait for a click.
          shownAtFirst={index === 0}
        />
      ))}
    </aside>
  );
}

function SegmentationCard(props: {
  segmentation: Segmentation;
  images: SeriesImages | null;
  view: StackView | null;
  shownAtFirst: boolean;
}) {
  const { t } = useTranslation();
  const { segmentation, images, view } = props;
  const [shown, setShown] = useState(props.shownAtFirst);
  const [hidden, setHidden] = useState<ReadonlySet<number>>(new Set());
  const [opacity, setOpacity] = useState(FIRST_OPACITY);
  const masks = useQuery({
    queryKey: ['masks', segmentation.id, segmentation.version],
    queryFn: ({ signal }) => fetchMasks(segmentation.id, signal),
    enabled: shown,
    staleTime: Number.POSITIVE_INFINITY,
  });
  const overlay = useRef<LabelmapOverlay | null>(null);
  const segments = segmentation.segments.map((segment) =>
    overlayOf(segment, shown && !hidden.has(segment.segment_number)),
  );
  const latest = useRef({ segments, opacity, goesThere: props.shownAtFirst });
  latest.current = { segments, opacity, goesThere: props.shownAtFirst };

  useEffect(() => {
    if (view === null || images === null || masks.data === undefined) return;
    const made = new LabelmapOverlay(
      `${segmentation.id}@${segmentation.version}`,
      view.viewportId,
      images,
      masks.data,
      latest.current.segments,
    );
    made.setOpacity(latest.current.opacity);
    overlay.current = made;
    if (latest.current.goesThere) {
      // What was just opened or made is what one wants to see.
      const image = made.densestImage();
      if (image !== null) void view.goTo(image);
    }
    return () => {
      overlay.current = null;
      made.destroy();
    };
  }, [view, images, masks.data, segmentation.id, segmentation.version]);

  const visibleNumbers = segments
    .filter((one) => one.visible)
    .map((one) => one.segmentNumber)
    .join();
  // biome-ignore lint/correctness/useExhaustiveDependencies: painting follows what is visible, not each new array
  useEffect(() => {
    overlay.current?.show(latest.current.segments);
  }, [visibleNumbers]);
  useEffect(() => {
    overlay.current?.setOpacity(opacity);
  }, [opacity]);

  const toggle = (segmentNumber: number) => {
    const next = new Set(hidden);
    if (!next.delete(segmentNumber)) next.add(segmentNumber);
    setHidden(next);
  };
  const name = segmentation.label || t('segmentation.title');
  return (
    <section
      className={classes.card}
      data-testid="segmentation"
      data-drawn={masks.data !== undefined && view !== null}
    >
      <header className={classes.head}>
        <ActionIcon
          size="sm"
          variant="subtle"
          color="gray"
          aria-label={t(shown ? 'segmentation.hide' : 'segmentation.show', { label: name })}
          data-testid="segmentation-visibility"
          onClick={() => setShown(!shown)}
        >
          {shown ? <EyeIcon /> : <EyeOffIcon />}
        </ActionIcon>
        <span className={classes.name} title={name}>
          {name}
        </span>
        <Badge size="xs" variant="light" color={segmentation.state === 'approved' ? 'teal' : 'gray'}>
          {t(`segmentation.state.${segmentation.state}`)}
        </Badge>
      </header>
      {masks.error !== null && <FailureNotice title={t('segmentation.masksFailed')} error={masks.error} />}
      <ul className={classes.segments}>
        {segmentation.segments.map((segment) => (
          <SegmentRow
            key={segment.segment_number}
            segment={segment}
            visible={shown && !hidden.has(segment.segment_number)}
            onToggle={() => toggle(segment.segment_number)}
            onGoTo={() => {
              const image = overlay.current?.densestImage(segment.segment_number) ?? null;
              if (image !== null) void view?.goTo(image);
            }}
          />
        ))}
      </ul>
      <div className={classes.opacity}>
        <Text size="xs" c="dimmed">
          {t('segmentation.opacity')}
        </Text>
        <Slider
          size="xs"
          min={0}
          max={1}
          step={0.05}
          label={null}
          thumbLabel={t('segmentation.opacity')}
          value={opacity}
          onChange={setOpacity}
          disabled={!shown}
        />
      </div>
    </section>
  );
}

function SegmentRow(props: { segment: Segment; visible: boolean; onToggle: () => void; onGoTo: () => void }) {
  const { t, i18n } = useTranslation();
  const { segment, visible } = props;
  const volume = segment.statistics.volume_mm3 / MM3_PER_ML;
  const digits = volume < 10 ? 2 : volume < 100 ? 1 : 0;
  const value = volume.toLocaleString(i18n.language, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return (
    <li className={classes.row}>
      <UnstyledButton
        className={classes.segment}
        data-visible={visible}
        aria-pressed={visible}
        aria-label={t(visible ? 'segmentation.hide' : 'segmentation.show', { label: segment.label })}
        data-testid="segment"
        onClick={props.onToggle}
      >
        <span className={classes.color} style={{ background: segment.color }} />
        <span className={classes.name} title={segment.code.meaning}>
          {segment.label}
        </span>
        <span className={classes.volume}>{t('segmentation.volume', { value })}</span>
      </UnstyledButton>
      <ActionIcon
        size="xs"
        variant="subtle"
        color="gray"
        disabled={!visible}
        aria-label={t('segmentation.goTo', { label: segment.label })}
        title={t('segmentation.goTo', { label: segment.label })}
        data-testid="go-to-segment"
        onClick={props.onGoTo}
      >
        <TargetIcon />
      </ActionIcon>
    </li>
  );
}

function overlayOf(segment: Segment, visible: boolean): OverlaySegment {
  return {
    segmentNumber: segment.segment_number,
    color: segment.color,
    voxels: segment.statistics.voxels,
    visible,
  };
}
