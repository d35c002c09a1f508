import { describe, expect, it } from 'vitest';
import { enclosedRegion, forEachPixelOfStroke } from './brush';
import { BOTH, differenceOf, ONLY_FIRST, ONLY_SECOND } from './mask-difference';
import { pictureOfSlice } from './mask-picture';
import { hasBit, MaskVolume, setBit, withChange } from './mask-volume';

const GRID = { rows: 9, columns: 11 };

function stroke(from: [number, number], to: [number, number], radius: number, aspect = 1): Set<number> {
  const found = new Set<number>();
  forEachPixelOfStroke(GRID, from, to, radius, aspect, (index) => found.add(index));
  return found;
}

describe('the brush', () => {
  it('marks the pixels whose centres lie within it', () => {
    const found = stroke([5.5, 4.5], [5.5, 4.5], 1);
    expect([...found].sort((a, b) => a - b)).toEqual([38, 48, 49, 50, 60]);
  });

  it('leaves no gap on a fast stroke', () => {
    const found = stroke([0.5, 4.5], [10.5, 4.5], 0.6);
    for (let column = 0; column < GRID.columns; column += 1)
      expect(found.has(4 * GRID.columns + column)).toBe(true);
  });

  it('marks the pixel under its tip however small it is, and nothing beside the image', () => {
    expect([...stroke([3.2, 2.9], [3.2, 2.9], 0.01)]).toEqual([2 * GRID.columns + 3]);
    expect(stroke([-5, -5], [-5, -5], 2).size).toBe(0);
  });

  it('is round in millimetres where pixels are twice as high as wide', () => {
    const found = stroke([5.5, 4.5], [5.5, 4.5], 2, 2);
    const rows = new Set([...found].map((index) => Math.floor(index / GRID.columns)));
    const columns = new Set([...found].map((index) => index % GRID.columns));
    expect([rows.size, columns.size]).toEqual([3, 5]);
  });
});

describe('the fill', () => {
  const ring = new Set([13, 14, 15, 24, 26, 35, 36, 37]);

  it('marks what is enclosed', () => {
    expect(enclosedRegion(GRID, (index) => ring.has(index), 25)).toEqual([25]);
  });

  it('refuses to flood the image, and a place that is marked', () => {
    expect(enclosedRegion(GRID, (index) => ring.has(index), 60)).toBeNull();
    expect(enclosedRegion(GRID, (index) => ring.has(index), 24)).toBeNull();
  });
});

/** A mask of 3 slices of 3 x 5: slices do not begin at whole bytes. */
function volumeOf(...voxels: number[]): MaskVolume {
  const bits = new Uint8Array(6);
  for (const voxel of voxels) setBit(bits, voxel);
  return new MaskVolume({
    shapeKji: [3, 3, 5],
    affineLps: [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    segments: [{ segmentNumber: 1, bits }],
  });
}

describe('a mask volume', () => {
  it('gives slices that begin inside a byte', () => {
    const slice = volumeOf(14, 15, 29, 30).slice(1, 1);
    expect([0, 1, 14, 15].map((index) => hasBit(slice, index))).toEqual([true, false, true, false]);
  });

  it('shows the drawn slice over the stored one, and keeps the others', () => {
    const volume = volumeOf(0, 20);
    const drawn = new Uint8Array(2);
    setBit(drawn, 7);
    volume.put(1, 1, drawn);
    expect([0, 1, 2].map((k) => volume.voxels(1, k))).toEqual([1, 1, 0]);
    expect(hasBit(volume.slice(1, 1), 7)).toBe(true);
    expect(volume.densestSlice([1])).toBe(0);
  });

  it('knows a segment that was drawn and never stored', () => {
    const volume = volumeOf();
    volume.put(4, 2, new Uint8Array([255, 0]));
    expect(volume.segmentNumbers).toEqual([1, 4]);
    expect(volume.densestSlice([4])).toBe(2);
  });
});

it('a stroke is undone without what somebody else did beside it', () => {
  const [before, after] = [new Uint8Array([0b0001]), new Uint8Array([0b0110])];
  const theirs = new Uint8Array([0b1000_0110]);
  expect([...withChange(theirs, after, before)]).toEqual([0b1000_0001]);
});

describe('the picture of a slice', () => {
  const red = { segmentNumber: 1, rgb: [255, 0, 0] as const, voxels: 1, visible: true };

  it('tints what is marked and leaves the rest clear', () => {
    const picture = pictureOfSlice(volumeOf(2), 0, [red], 0.3);
    expect([...(picture ?? []).slice(8, 11)]).toEqual([255, 0, 0]);
    expect(picture?.[11]).toBeGreaterThan(0.3 * 255);
    expect(picture?.[3]).toBe(0);
  });

  it('is nothing where nothing is to be seen', () => {
    expect(pictureOfSlice(volumeOf(2), 1, [red], 0.3)).toBeNull();
    expect(pictureOfSlice(volumeOf(2), 0, [{ ...red, visible: false }], 0.3)).toBeNull();
    expect(pictureOfSlice(volumeOf(2), -1, [red], 0.3)).toBeNull();
  });
});

describe('a comparison', () => {
  it('counts what only one has and what both have', () => {
    const { dice, voxels, volume } = differenceOf(volumeOf(0, 1, 20), volumeOf(1, 20, 40), [1]);
    expect(voxels).toEqual({ onlyFirst: 1, onlySecond: 1, both: 2 });
    expect(dice).toBeCloseTo(4 / 6);
    expect([ONLY_FIRST, ONLY_SECOND, BOTH].map((part) => volume.voxels(part, 0))).toEqual([1, 0, 1]);
  });

  it('has no Dice where neither has a voxel', () => {
    expect(differenceOf(volumeOf(), volumeOf(), [1]).dice).toBeNull();
  });
});
