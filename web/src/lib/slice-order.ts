/** Order of slices along the normal of their plane, in LPS millimetres. Pure. */
import { type DicomDataset, numberOf, numbersOf, TAG } from './dicom-json';

export type Vector = readonly [number, number, number];

export function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/** Cross product of row and column direction (ImageOrientationPatient); null where there is no orientation. */
export function sliceNormal(orientation: readonly number[]): Vector | null {
  if (orientation.length !== 6) return null;
  const [rx, ry, rz, cx, cy, cz] = orientation as [number, number, number, number, number, number];
  return [ry * cz - rz * cy, rz * cx - rx * cz, rx * cy - ry * cx];
}

export function positionOf(dataset: DicomDataset): Vector | null {
  const position = numbersOf(dataset, TAG.imagePosition);
  return position.length === 3 ? (position as unknown as Vector) : null;
}

/** By place in the patient when each slice has one in the same orientation, else by InstanceNumber. */
export function inSliceOrder(instances: readonly DicomDataset[]): DicomDataset[] {
  const normal = sliceNormal(numbersOf(instances[0] ?? {}, TAG.imageOrientation));
  const places = instances.map((instance) => {
    const position = positionOf(instance);
    return normal === null || position === null ? null : dot(position, normal);
  });
  const placed = places.every((place) => place !== null) && new Set(places).size === places.length;
  return instances
    .map((instance, index) => ({
      instance,
      key: placed ? (places[index] ?? 0) : (numberOf(instance, TAG.instanceNumber) ?? index),
    }))
    .sort((a, b) => a.key - b.key)
    .map(({ instance }) => instance);
}

/**
 * For each mask slice k the index of the image slice that lies at the same place, or -1.
 * `affineLps` is row-major 4x4 from voxel (i, j, k) to LPS mm. Without positions slices pair up by number.
 */
export function matchSlices(
  positions: readonly (Vector | null)[],
  normal: Vector | null,
  affineLps: readonly number[],
  sliceCount: number,
): number[] {
  const places = positions.map((position) => (position && normal ? dot(position, normal) : null));
  if (normal === null || places.some((place) => place === null))
    return Array.from({ length: sliceCount }, (_, k) => (k < positions.length ? k : -1));
  const origin = [affineLps[3], affineLps[7], affineLps[11]] as unknown as Vector;
  const step = [affineLps[2], affineLps[6], affineLps[10]] as unknown as Vector;
  const tolerance = Math.abs(dot(step, normal)) / 2;
  return Array.from({ length: sliceCount }, (_, k) => {
    const wanted = dot(origin, normal) + k * dot(step, normal);
    let best = -1;
    let bestDistance = tolerance;
    for (const [index, place] of places.entries()) {
      const distance = Math.abs((place as number) - wanted);
      if (distance <= bestDistance) {
        best = index;
        bestDistance = distance;
      }
    }
    return best;
  });
}

/** The other way round: for each of `imageCount` images the mask slice at its place, or -1. */
export function slicesOfImages(imageOfSlice: readonly number[], imageCount: number): number[] {
  const slices = new Array<number>(imageCount).fill(-1);
  for (const [k, image] of imageOfSlice.entries()) if (image >= 0) slices[image] = k;
  return slices;
}
