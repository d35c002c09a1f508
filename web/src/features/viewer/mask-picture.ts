/** One slice of masks as pixels with transparency: a tint where a segment is, stronger along its border. Pure. */
import { hasBit, type MaskVolume } from './mask-volume';

export interface PaintedSegment {
  segmentNumber: number;
  rgb: readonly [number, number, number];
  /** Large ones are painted first, so that what lies within them stays visible. */
  voxels: number;
  visible: boolean;
}

const BORDER_GAIN = 2.4;

/** RGBA, row by row; null where nothing is to be seen. `opacity` from 0 (unseen) to 1 (hides the image). */
export function pictureOfSlice(
  volume: MaskVolume,
  k: number,
  segments: readonly PaintedSegment[],
  opacity: number,
): Uint8ClampedArray<ArrayBuffer> | null {
  const [slices, rows, columns] = volume.shapeKji;
  if (k < 0 || k >= slices) return null;
  let picture: Uint8ClampedArray<ArrayBuffer> | null = null;
  const largestFirst = segments.filter((one) => one.visible).sort((a, b) => b.voxels - a.voxels);
  for (const { segmentNumber, rgb } of largestFirst) {
    const mask = volume.slice(segmentNumber, k);
    const border = Math.min(1, opacity * BORDER_GAIN);
    volume.forEachVoxel(segmentNumber, k, (index) => {
      picture ??= new Uint8ClampedArray(rows * columns * 4);
      const column = index % columns;
      const inside =
        column > 0 &&
        column < columns - 1 &&
        hasBit(mask, index - 1) &&
        hasBit(mask, index + 1) &&
        index >= columns &&
        hasBit(mask, index - columns) &&
        index + columns < rows * columns &&
        hasBit(mask, index + columns);
      blend(picture, index * 4, rgb, inside ? opacity : border);
    });
  }
  return picture;
}

function blend(picture: Uint8ClampedArray, at: number, rgb: readonly number[], alpha: number): void {
  const below = (picture[at + 3] ?? 0) / 255;
  const sum = alpha + below * (1 - alpha);
  if (sum === 0) return;
  for (let channel = 0; channel < 3; channel += 1)
    picture[at + channel] =
      ((rgb[channel] ?? 0) * alpha + (picture[at + channel] ?? 0) * below * (1 - alpha)) / sum;
  picture[at + 3] = sum * 255;
}

export function rgbOf(color: string): [number, number, number] {
  const value = Number.parseInt(color.replace('#', ''), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}
