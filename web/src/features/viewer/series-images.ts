/** From the metadata of a series to the image ids that the engine loads, in slice order. */
import dicomImageLoader, { type Types } from '@cornerstonejs/dicom-image-loader';
import { framesUrl, retrieveSeriesMetadata } from '../../api/dicom-web';
import { type DicomDataset, numberOf, numbersOf, TAG, textOf } from '../../lib/dicom-json';
import { inSliceOrder, positionOf, sliceNormal, type Vector } from '../../lib/slice-order';

/** What an image is called and how it lies, for what is drawn on it. */
export interface ImagePlace {
  sopInstanceUid: string;
  /** From 1; null for an image of one frame. */
  frameNumber: number | null;
  spacing: { columnMm: number; rowMm: number } | null;
  /** Directions of growing column and row in LPS (PS3.3 C.7.6.2.1.1). */
  orientation: readonly number[] | null;
}

export interface SeriesImages {
  imageIds: string[];
  places: ImagePlace[];
  /** Of each image the place of its first voxel in LPS mm; null where the object has none (and for frames). */
  positions: (Vector | null)[];
  normal: Vector | null;
  modality: string;
  hasWindow: boolean;
}

export async function loadSeriesImages(
  studyUid: string,
  seriesUid: string,
  signal: AbortSignal,
): Promise<SeriesImages> {
  const metadata = await retrieveSeriesMetadata(studyUid, seriesUid, signal);
  const instances = inSliceOrder(metadata.filter((instance) => numberOf(instance, TAG.rows) !== null));
  const first = instances[0] ?? {};
  const images: SeriesImages = {
    imageIds: [],
    places: [],
    positions: [],
    normal: sliceNormal(numbersOf(first, TAG.imageOrientation)),
    modality: textOf(first, TAG.modality),
    hasWindow: numberOf(first, TAG.windowWidth) !== null,
  };
  for (const instance of instances) addFrames(images, instance, studyUid, seriesUid);
  return images;
}

function addFrames(images: SeriesImages, instance: DicomDataset, studyUid: string, seriesUid: string): void {
  const url = framesUrl(studyUid, seriesUid, textOf(instance, TAG.sopInstanceUid));
  const frames = numberOf(instance, TAG.numberOfFrames) ?? 1;
  const drawable = withPossibleSpacing(instance);
  for (let frameNumber = 1; frameNumber <= frames; frameNumber += 1) {
    const imageId = `wadors:${window.location.origin}${url}/${frameNumber}`;
    dicomImageLoader.wadors.metaDataManager.add(imageId, drawable as unknown as Types.WADORSMetaData);
    images.imageIds.push(imageId);
    images.places.push(placeOf(drawable, frames === 1 ? null : frameNumber));
    images.positions.push(frames === 1 ? positionOf(instance) : null);
  }
}

/** Files exist whose pixels are 0 mm apart; the engine would draw nothing. Without a spacing it draws square pixels. */
function withPossibleSpacing(instance: DicomDataset): DicomDataset {
  const drawable = { ...instance };
  for (const tag of [TAG.pixelSpacing, TAG.imagerPixelSpacing]) {
    const spacing = numbersOf(instance, tag);
    if (spacing.length !== 2 || spacing.some((mm) => mm <= 0)) delete drawable[tag];
  }
  return drawable;
}

function placeOf(instance: DicomDataset, frameNumber: number | null): ImagePlace {
  const own = numbersOf(instance, TAG.pixelSpacing);
  const [rowMm, columnMm] = own.length === 2 ? own : [];
  const orientation = numbersOf(instance, TAG.imageOrientation);
  return {
    sopInstanceUid: textOf(instance, TAG.sopInstanceUid),
    frameNumber,
    spacing: rowMm !== undefined && columnMm !== undefined ? { rowMm, columnMm } : null,
    orientation: orientation.length === 6 ? orientation : null,
  };
}
