/** What a study holds, beside the list: its series with pictures, its segmentations, and the ways to open it. */
import { Badge, Button, CloseButton, Loader, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { api, bodyOf, type Segmentation } from '../../api/client';
import { DICOM_WEB_ROOT, querySeries } from '../../api/dicom-web';
import { FailureNotice } from '../../components/failure-notice';
import { Picture } from '../../components/picture';
import {
  type DicomDataset,
  isoDateOf,
  numberOf,
  personNameOf,
  TAG,
  textOf,
  textsOf,
} from '../../lib/dicom-json';
import classes from './study-preview.module.css';

interface Props {
  study: DicomDataset;
  onOpen: () => void;
  onClose: () => void;
}

export function StudyPreview({ study, onOpen, onClose }: Props) {
  const { t } = useTranslation();
  const studyUid = textOf(study, TAG.studyInstanceUid);
  return (
    <aside className={classes.panel} aria-label={t('studies.preview')} data-testid="study-preview">
      <div className={classes.head}>
        <div className={classes.who}>
          <Text fw={600} truncate>
            {personNameOf(study, TAG.patientName) || t('studies.unnamed')}
          </Text>
          <Text size="xs" c="dimmed" truncate>
            {[textOf(study, TAG.patientId), isoDateOf(study, TAG.studyDate)].filter(Boolean).join(' · ')}
          </Text>
        </div>
        <CloseButton aria-label={t('studies.closePreview')} data-testid="close-preview" onClick={onClose} />
      </div>
      <div className={classes.scroll}>
        <dl className={classes.facts}>
          <Fact name={t('studies.description')} value={textOf(study, TAG.studyDescription)} />
          <Fact name={t('studies.modalities')} value={textsOf(study, TAG.modalitiesInStudy).join(', ')} />
          <Fact name={t('studies.series')} value={count(study, TAG.studyRelatedSeries)} />
          <Fact name={t('studies.instances')} value={count(study, TAG.studyRelatedInstances)} />
        </dl>
        <SeriesPart studyUid={studyUid} />
        <SegmentationPart studyUid={studyUid} />
      </div>
      <div className={classes.foot}>
        <Button size="sm" flex={1} onClick={onOpen} data-testid="preview-open">
          {t('studies.open')}
        </Button>
        <Button
          size="sm"
          flex={1}
          variant="default"
          component="a"
          href={`/ohif/viewer?StudyInstanceUIDs=${studyUid}`}
          target="_blank"
          rel="noopener"
        >
          {t('studies.openOhif')}
        </Button>
      </div>
    </aside>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div className={classes.fact}>
      <dt>{name}</dt>
      <dd>{value || '–'}</dd>
    </div>
  );
}

function SeriesPart({ studyUid }: { studyUid: string }) {
  const { t } = useTranslation();
  const series = useQuery({
    queryKey: ['series', studyUid],
    queryFn: ({ signal }) => querySeries(studyUid, signal),
  });
  if (series.error !== null)
    return (
      <FailureNotice
        title={t('studies.seriesFailed')}
        error={series.error}
        onRetry={() => void series.refetch()}
      />
    );
  if (!series.isSuccess) return <Loader size="sm" m="md" aria-label={t('viewer.loadingStudy')} />;
  const sorted = [...series.data].sort(
    (a, b) => (numberOf(a, TAG.seriesNumber) ?? 0) - (numberOf(b, TAG.seriesNumber) ?? 0),
  );
  return (
    <section aria-label={t('studies.series')}>
      {sorted.map((one) => (
        <SeriesLine key={textOf(one, TAG.seriesInstanceUid)} studyUid={studyUid} series={one} />
      ))}
    </section>
  );
}

function SeriesLine({ studyUid, series }: { studyUid: string; series: DicomDataset }) {
  const { t } = useTranslation();
  const seriesUid = textOf(series, TAG.seriesInstanceUid);
  const name =
    textOf(series, TAG.seriesDescription) ||
    t('viewer.seriesUnnamed', { number: textOf(series, TAG.seriesNumber) });
  return (
    <Link
      to="/viewer/$studyUid"
      params={{ studyUid }}
      search={{ series: seriesUid }}
      className={classes.series}
      data-testid="preview-series"
      title={name}
    >
      <Picture src={`${DICOM_WEB_ROOT}/studies/${studyUid}/series/${seriesUid}/thumbnail`} size={52} />
      <span className={classes.seriesText}>
        <span className={classes.seriesName}>{name}</span>
        <span className={classes.seriesCount}>
          <b>{textOf(series, TAG.modality)}</b>
          {' · '}
          {t('viewer.imageCount', { count: numberOf(series, TAG.seriesRelatedInstances) ?? 0 })}
        </span>
      </span>
    </Link>
  );
}

function SegmentationPart({ studyUid }: { studyUid: string }) {
  const { t } = useTranslation();
  const segmentations = useQuery({
    queryKey: ['study-segmentations', studyUid],
    queryFn: ({ signal }) =>
      bodyOf(
        api.GET('/api/v1/segmentations', { params: { query: { study_instance_uid: studyUid } }, signal }),
      ),
  });
  return (
    <section className={classes.part}>
      <h3 className={classes.partTitle}>{t('segmentation.title')}</h3>
      {segmentations.error !== null && (
        <Text size="xs" c="dimmed">
          {t('segmentation.failed')}
        </Text>
      )}
      {segmentations.data?.items.length === 0 && (
        <Text size="xs" c="dimmed">
          {t('studies.noSegmentations')}
        </Text>
      )}
      {segmentations.data?.items.map((one) => (
        <div key={one.id} className={classes.segmentation}>
          <Text size="sm" truncate title={nameOf(one)}>
            {nameOf(one)}
          </Text>
          <Badge size="sm" variant="light" tt="none" color={one.state === 'approved' ? 'teal' : 'gray'}>
            {t(`segmentation.state.${one.state}`)}
          </Badge>
        </div>
      ))}
    </section>
  );
}

const nameOf = (one: Segmentation) => one.label || one.segments.map((segment) => segment.label).join(', ');
const count = (study: DicomDataset, tag: string) => String(numberOf(study, tag) ?? '');
