/** Draws masks over the image, on a canvas of their own: a stroke then costs one small picture and no upload to the GPU. */
import { type PaintedSegment, pictureOfSlice } from './mask-picture';
import type { MaskVolume } from './mask-volume';
import type { Placement } from './stack-view';

export interface MaskLayer {
  key: string;
  volume: MaskVolume;
  /** Of each image of the stack the slice of the masks at the same place, or -1. */
  sliceOfImage: readonly number[];
  segments: readonly PaintedSegment[];
  opacity: number;
  /** Changes whenever the picture would. */
  stamp: string;
}

interface Kept {
  stamp: string;
  canvas: HTMLCanvasElement | null;
}

const pictures = new WeakMap<HTMLCanvasElement, Map<string, Kept>>();

export function drawMasks(
  canvas: HTMLCanvasElement,
  placement: Placement | null,
  layers: readonly MaskLayer[],
): void {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round) as [
    number,
    number,
  ];
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = canvas.getContext('2d');
  if (context === null) return;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, width, height);
  if (placement === null) return;
  const { a, b, c, d, e, f } = placement.toScreen;
  context.setTransform(a * ratio, b * ratio, c * ratio, d * ratio, e * ratio, f * ratio);
  context.imageSmoothingEnabled = false;
  for (const layer of layers) {
    const picture = pictureOf(canvas, layer, placement);
    if (picture !== null) context.drawImage(picture, 0, 0);
  }
}

/** Kept while the slice and what is shown of it stay, so that panning and zooming only move it. */
function pictureOf(
  canvas: HTMLCanvasElement,
  layer: MaskLayer,
  placement: Placement,
): HTMLCanvasElement | null {
  const kept = pictures.get(canvas) ?? new Map<string, Kept>();
  pictures.set(canvas, kept);
  const k = layer.sliceOfImage[placement.sliceIndex] ?? -1;
  const stamp = `${k}|${layer.stamp}`;
  const known = kept.get(layer.key);
  if (known?.stamp === stamp) return known.canvas;
  const [, rows, columns] = layer.volume.shapeKji;
  const fits = rows === placement.rows && columns === placement.columns;
  const pixels = fits ? pictureOfSlice(layer.volume, k, layer.segments, layer.opacity) : null;
  let picture: HTMLCanvasElement | null = null;
  if (pixels !== null) {
    const made = known?.canvas ?? document.createElement('canvas');
    made.width = columns;
    made.height = rows;
    made.getContext('2d')?.putImageData(new ImageData(pixels, columns, rows), 0, 0);
    picture = made;
  }
  kept.set(layer.key, { stamp, canvas: picture });
  return picture;
}
