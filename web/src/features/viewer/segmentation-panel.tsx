/** The segmentations of the shown series, and the beginning of a new one. */
import { Button, Group, Loader, Slider, Text } from '@mantine/core';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { api, bodyOf } from '../../api/client';
import { beginSegmentation } from '../../api/masks';
import type { WorkProject } from '../../api/work-project';
import { FailureNotice } from '../../components/failure-notice';
import { useStore } from '../../lib/store';
import { newUuid } from '../../lib/uuid';
import { previewOf } from './mask-layers';
import type { Reading } from './reading';
import { SegmentationCard } from './segmentation-card';
import classes from './segmentation-panel.module.css';
import type { SeriesImages } from './series-images';
import type { StackView } from './stack-view';

interface Props {
  reading: Reading;
  seriesUid: string;
  images: SeriesImages | null;
  /** null until the stack shows this series. */
  view: StackView | null;
  project: WorkProject | null;
}

export function SegmentationPanel({ reading, seriesUid, images, view, project }: Props) {
  const { t } = useTranslation();
  const { opacity } = useStore(reading.state);
  const preview = useStore(previewOf(reading));
  const segmentations = useQuery({
    queryKey: ['segmentations', seriesUid],
    queryFn: ({ signal }) =>
      bodyOf(
        api.GET('/api/v1/segmentations', { params: { query: { series_instance_uid: seriesUid } }, signal }),
      ),
  });
  const beginning = useMutation({
    mutationFn: async () => {
      if (project === null) throw new Error(t('annotation.noProject'));
      return beginSegmentation({
        id: newUuid(),
        project_id: project.id,
        study_instance_uid: reading.studyUid,
        series_instance_uid: seriesUid,
        label: t('segmentation.newName'),
        segments: [{ segment_number: 1, label: t('segmentation.segmentName', { number: 1 }) }],
      });
    },
    onSuccess: async (made) => {
      reading.putSegmentation(made);
      await reading.openMasks(made);
      reading.state.update({ active: { segmentationId: made.id, segmentNumber: 1 }, tool: 'brush' });
    },
  });
  const items = segmentations.data?.items ?? [];
  return (
    <section aria-label={t('segmentation.title')} data-testid="segmentations">
      <Group justify="space-between" px={12} py={8}>
        <Button
          size="compact-xs"
          variant="light"
          loading={beginning.isPending}
          disabled={project === null || !project.permissions.includes('segmentation.write')}
          data-testid="new-segmentation"
          onClick={() => beginning.mutate()}
        >
          {t('segmentation.new')}
        </Button>
        {segmentations.isFetching && <Loader size={12} />}
      </Group>
      {items.length > 0 && (
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
            onChange={(value) => reading.state.update({ opacity: value })}
          />
        </div>
      )}
      {beginning.error !== null && (
        <FailureNotice title={t('segmentation.beginFailed')} error={beginning.error} />
      )}
      {segmentations.error !== null && (
        <FailureNotice
          title={t('segmentation.failed')}
          error={segmentations.error}
          onRetry={() => void segmentations.refetch()}
        />
      )}
      {preview !== null && (
        <div className={classes.preview} data-testid="preview" role="status">
          <Text size="xs" fw={600}>
            {preview.title}
          </Text>
          {preview.legend.map((one) => (
            <span key={one.label} className={classes.legend}>
              <span className={classes.color} style={{ background: one.color }} />
              {one.label}
            </span>
          ))}
          <Button size="compact-xs" variant="default" onClick={() => previewOf(reading).set(null)}>
            {t('segmentation.endPreview')}
          </Button>
        </div>
      )}
      {segmentations.isSuccess && items.length === 0 && (
        <Text size="sm" c="dimmed" px={12}>
          {t('segmentation.none')}
        </Text>
      )}
      {items.map((segmentation, index) => (
        <SegmentationCard
          key={segmentation.id}
          reading={reading}
          segmentation={segmentation}
          others={items.filter((one) => one.id !== segmentation.id)}
          images={images}
          view={view}
          project={project}
          // The server lists the newest first: that one is shown, older ones wait for a click.
          shownAtFirst={index === 0}
        />
      ))}
    </section>
  );
}
