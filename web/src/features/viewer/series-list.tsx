/** The image series of a study with a picture of each. */
import { UnstyledButton } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { type DicomDataset, numberOf, TAG, textOf } from '../../lib/dicom-json';
import { loadSeriesImages } from './series-images';
import classes from './series-list.module.css';
import { thumbnailOf } from './thumbnail';

interface Props {
  studyUid: string;
  series: DicomDataset[];
  chosen: string;
  onChoose: (seriesUid: string) => void;
}

export function SeriesList({ studyUid, series, chosen, onChoose }: Props) {
  const { t } = useTranslation();
  return (
    <nav className={classes.list} aria-label={t('viewer.series')}>
      {series.map((one) => {
        const seriesUid = textOf(one, TAG.seriesInstanceUid);
        const count = numberOf(one, TAG.seriesRelatedInstances);
        const name =
          textOf(one, TAG.seriesDescription) ||
          t('viewer.seriesUnnamed', { number: textOf(one, TAG.seriesNumber) });
        return (
          <UnstyledButton
            key={seriesUid}
            className={classes.item}
            data-chosen={seriesUid === chosen || undefined}
            aria-current={seriesUid === chosen}
            data-testid="series"
            title={name}
            onClick={() => onChoose(seriesUid)}
          >
            <Thumbnail studyUid={studyUid} seriesUid={seriesUid} />
            <span className={classes.modality}>{textOf(one, TAG.modality)}</span>
            <span className={classes.name}>{name}</span>
            {count !== null && <span className={classes.count}>{t('viewer.imageCount', { count })}</span>}
          </UnstyledButton>
        );
      })}
    </nav>
  );
}

function Thumbnail({ studyUid, seriesUid }: { studyUid: string; seriesUid: string }) {
  const images = useQuery({
    queryKey: ['series-images', studyUid, seriesUid],
    queryFn: ({ signal }) => loadSeriesImages(studyUid, seriesUid, signal),
    staleTime: Number.POSITIVE_INFINITY,
  });
  const imageIds = images.data?.imageIds ?? [];
  const middle = imageIds[Math.floor(imageIds.length / 2)];
  const picture = useQuery({
    queryKey: ['thumbnail', seriesUid],
    queryFn: () => thumbnailOf(middle as string),
    enabled: middle !== undefined,
    staleTime: Number.POSITIVE_INFINITY,
  });
  return (
    <span className={classes.picture}>
      {picture.data && <img src={picture.data} alt="" draggable={false} />}
    </span>
  );
}
