/** How two masks differ: what only the first has, what only the second has, what both have; and the Dice score. Pure. */
import { MaskVolume } from './mask-volume';

export const ONLY_FIRST = 1;
export const ONLY_SECOND = 2;
export const BOTH = 3;

export interface Difference {
  /** With the three parts as segments. */
  volume: MaskVolume;
  voxels: { onlyFirst: number; onlySecond: number; both: number };
  /** 2 |A and B| / (|A| + |B|); null where neither has a voxel. */
  dice: number | null;
}

/** Over the given segments taken together. Both volumes have the same grid. */
export function differenceOf(
  first: MaskVolume,
  second: MaskVolume,
  segmentNumbers: readonly number[],
): Difference {
  const made = new MaskVolume({
    shapeKji: [...first.shapeKji],
    affineLps: [...first.affineLps],
    segments: [],
  });
  const voxels = { onlyFirst: 0, onlySecond: 0, both: 0 };
  for (let k = 0; k < first.shapeKji[0]; k += 1) {
    const a = union(first, k, segmentNumbers);
    const b = union(second, k, segmentNumbers);
    const put = (number: number, of: (x: number, y: number) => number): number => {
      const part = a.map((byte, index) => of(byte, b[index] ?? 0));
      made.put(number, k, part);
      return part.reduce((sum, byte) => sum + ones(byte), 0);
    };
    voxels.onlyFirst += put(ONLY_FIRST, (x, y) => x & ~y);
    voxels.onlySecond += put(ONLY_SECOND, (x, y) => y & ~x);
    voxels.both += put(BOTH, (x, y) => x & y);
  }
  const all = voxels.onlyFirst + voxels.onlySecond + 2 * voxels.both;
  return { volume: made, voxels, dice: all === 0 ? null : (2 * voxels.both) / all };
}

function union(volume: MaskVolume, k: number, segmentNumbers: readonly number[]): Uint8Array {
  const whole = new Uint8Array(Math.ceil(volume.sliceSize / 8));
  for (const number of segmentNumbers)
    for (const [index, byte] of volume.slice(number, k).entries()) whole[index] = (whole[index] ?? 0) | byte;
  return whole;
}

function ones(byte: number): number {
  let count = 0;
  for (let rest = byte; rest > 0; rest &= rest - 1) count += 1;
  return count;
}
