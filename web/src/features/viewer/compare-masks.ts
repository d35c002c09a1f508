/** Two masks over each other as a preview: what only one of them has, in its colour, and how alike they are. */
import type { TFunction } from 'i18next';
import type { Segmentation } from '../../api/client';
import { fetchMasks } from '../../api/masks';
import { BOTH, differenceOf, ONLY_FIRST, ONLY_SECOND } from './mask-difference';
import type { Preview } from './mask-layers';
import { rgbOf } from './mask-picture';
import type { MaskSession } from './mask-session';
import { MaskVolume } from './mask-volume';

const COLORS = { [ONLY_FIRST]: '#ff9f1c', [ONLY_SECOND]: '#3a86ff', [BOTH]: '#7bc47f' } as const;

export async function compareSegmentations(
  session: MaskSession,
  other: Segmentation,
  t: TFunction,
): Promise<Preview> {
  const volume = new MaskVolume(await fetchMasks(other.id, other.version));
  return comparison(session, volume, other.label || t('segmentation.title'), t);
}

export async function compareVersions(session: MaskSession, version: number, t: TFunction): Promise<Preview> {
  const volume = new MaskVolume(await fetchMasks(session.id, version));
  return comparison(session, volume, t('segmentation.version', { version }), t);
}

function comparison(session: MaskSession, other: MaskVolume, name: string, t: TFunction): Preview {
  const [k, j, i] = session.volume.shapeKji;
  if (other.shapeKji[0] !== k || other.shapeKji[1] !== j || other.shapeKji[2] !== i)
    throw new RangeError(t('segmentation.otherGrid'));
  const numbers = [...new Set([...session.volume.segmentNumbers, ...other.segmentNumbers])];
  const { volume, voxels, dice } = differenceOf(session.volume, other, numbers);
  const part = (segmentNumber: typeof ONLY_FIRST | typeof ONLY_SECOND | typeof BOTH, count: number) => ({
    segmentNumber,
    rgb: rgbOf(COLORS[segmentNumber]),
    voxels: count,
    visible: true,
  });
  return {
    segmentationId: session.id,
    title: t('segmentation.comparison', { name, dice: dice === null ? '–' : dice.toFixed(3) }),
    volume,
    segments: [
      part(BOTH, voxels.both),
      part(ONLY_FIRST, voxels.onlyFirst),
      part(ONLY_SECOND, voxels.onlySecond),
    ],
    legend: [
      { label: t('segmentation.onlyThis', { count: voxels.onlyFirst }), color: COLORS[ONLY_FIRST] },
      { label: t('segmentation.onlyOther', { count: voxels.onlySecond }), color: COLORS[ONLY_SECOND] },
      { label: t('segmentation.inBoth', { count: voxels.both }), color: COLORS[BOTH] },
    ],
  };
}
