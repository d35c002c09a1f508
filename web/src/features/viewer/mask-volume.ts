/**
 * The masks of a segmentation while somebody works on them. What was read stays as it came, packed; slices that were
 * drawn on lie over it. Memory is the packed masks and the touched slices alone. Pure.
 */
import type { Masks } from '../../api/masks';
import { forEachSetBit } from '../../lib/packed-bits';

export interface SliceChange {
  segmentNumber: number;
  slice: number;
  /** Packed bits of one slice, from its first bit on. */
  before: Uint8Array;
  after: Uint8Array;
}

export class MaskVolume {
  readonly shapeKji: readonly [number, number, number];
  readonly affineLps: readonly number[];
  private readonly whole: Map<number, Uint8Array>;
  private readonly touched = new Map<string, Uint8Array>();

  constructor(masks: Masks) {
    this.shapeKji = masks.shapeKji;
    this.affineLps = masks.affineLps;
    this.whole = new Map(masks.segments.map((one) => [one.segmentNumber, one.bits]));
  }

  get segmentNumbers(): number[] {
    const touched = [...this.touched.keys()].map((key) => Number(key.split(':')[0]));
    return [...new Set([...this.whole.keys(), ...touched])].sort((a, b) => a - b);
  }

  get sliceSize(): number {
    return this.shapeKji[1] * this.shapeKji[2];
  }

  /** A copy of one slice, packed. */
  slice(segmentNumber: number, k: number): Uint8Array {
    const touched = this.touched.get(`${segmentNumber}:${k}`);
    if (touched !== undefined) return touched.slice();
    const size = this.sliceSize;
    const packed = new Uint8Array(Math.ceil(size / 8));
    const whole = this.whole.get(segmentNumber);
    if (whole === undefined) return packed;
    const start = k * size;
    if (start % 8 === 0) packed.set(whole.subarray(start / 8, start / 8 + packed.length));
    else forEachSetBit(whole, start, size, (offset) => setBit(packed, offset));
    const rest = size % 8;
    if (rest !== 0) packed[packed.length - 1] = (packed[packed.length - 1] ?? 0) & ((1 << rest) - 1);
    return packed;
  }

  put(segmentNumber: number, k: number, packed: Uint8Array): void {
    this.touched.set(`${segmentNumber}:${k}`, packed);
  }

  forEachVoxel(segmentNumber: number, k: number, visit: (offset: number) => void): void {
    const touched = this.touched.get(`${segmentNumber}:${k}`);
    const whole = this.whole.get(segmentNumber);
    if (touched !== undefined) forEachSetBit(touched, 0, this.sliceSize, visit);
    else if (whole !== undefined) forEachSetBit(whole, k * this.sliceSize, this.sliceSize, visit);
  }

  voxels(segmentNumber: number, k: number): number {
    let count = 0;
    this.forEachVoxel(segmentNumber, k, () => {
      count += 1;
    });
    return count;
  }

  /** The slice with most of these segments; null where they have no voxel. */
  densestSlice(segmentNumbers: readonly number[]): number | null {
    let densest: number | null = null;
    let most = 0;
    for (let k = 0; k < this.shapeKji[0]; k += 1) {
      const count = segmentNumbers.reduce((sum, number) => sum + this.voxels(number, k), 0);
      if (count > most) {
        most = count;
        densest = k;
      }
    }
    return densest;
  }
}

/** A slice with one change done to it, or undone: voxels that the change did not touch stay as they are now. */
export function withChange(now: Uint8Array, from: Uint8Array, to: Uint8Array): Uint8Array {
  return now.map((byte, index) => {
    const touched = (from[index] ?? 0) ^ (to[index] ?? 0);
    return (byte & ~touched) | ((to[index] ?? 0) & touched);
  });
}

export function setBit(packed: Uint8Array, index: number): void {
  packed[index >> 3] = (packed[index >> 3] ?? 0) | (1 << (index & 7));
}

export function clearBit(packed: Uint8Array, index: number): void {
  packed[index >> 3] = (packed[index >> 3] ?? 0) & ~(1 << (index & 7));
}

export function hasBit(packed: Uint8Array, index: number): boolean {
  return ((packed[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}

export function sameBits(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}
