import { describe, expect, it } from 'vitest';
import type { DicomDataset } from './dicom-json';
import { inSliceOrder, matchSlices, sliceNormal } from './slice-order';

function slice(instanceNumber: number, z: number | null): DicomDataset {
  return {
    '00200013': { vr: 'IS', Value: [instanceNumber] },
    '00200037': { vr: 'DS', Value: [1, 0, 0, 0, 1, 0] },
    ...(z === null ? {} : { '00200032': { vr: 'DS', Value: [0, 0, z] } }),
  };
}
const numbers = (slices: DicomDataset[]) => slices.map((one) => one['00200013']?.Value?.[0]);

describe('slice order', () => {
  it('follows the place in the patient, not the instance number', () => {
    expect(numbers(inSliceOrder([slice(1, 30), slice(2, 10), slice(3, 20)]))).toEqual([2, 3, 1]);
  });

  it('follows the instance number where a slice has no place or shares one', () => {
    expect(numbers(inSliceOrder([slice(3, 1), slice(1, null), slice(2, 5)]))).toEqual([1, 2, 3]);
    expect(numbers(inSliceOrder([slice(2, 7), slice(1, 7)]))).toEqual([1, 2]);
  });

  it('has no normal without an orientation', () => {
    expect(sliceNormal([])).toBeNull();
    expect(sliceNormal([0, 1, 0, 0, 0, -1])).toEqual([-1, 0, 0]);
  });
});

describe('mask slices', () => {
  const normal = [0, 0, 1] as const;
  const positions = [10, 12, 14].map((z) => [0, 0, z] as const);
  const affine = (z: number, step: number) => [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, step, z, 0, 0, 0, 1];

  it('meet the image slice at the same place, also when the mask runs the other way', () => {
    expect(matchSlices(positions, normal, affine(10, 2), 3)).toEqual([0, 1, 2]);
    expect(matchSlices(positions, normal, affine(14, -2), 3)).toEqual([2, 1, 0]);
  });

  it('meet none where the images end', () => {
    expect(matchSlices(positions, normal, affine(12, 2), 3)).toEqual([1, 2, -1]);
  });

  it('pair up by number where images have no place', () => {
    expect(matchSlices([null, null], normal, affine(0, 1), 3)).toEqual([0, 1, -1]);
  });
});
