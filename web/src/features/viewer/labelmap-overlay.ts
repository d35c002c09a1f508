/**
 * Shows one segmentation over a stack. Segments may overlap (a ventricle lies in the brain), a labelmap holds one
 * number for each voxel: so only visible segments are painted, large ones first, and anew when visibility changes.
 */
import * as core from '@cornerstonejs/core';
import * as tools from '@cornerstonejs/tools';
import type { Masks } from '../../api/masks';
import { forEachSetBit } from '../../lib/packed-bits';
import { matchSlices } from '../../lib/slice-order';
import type { SeriesImages } from './series-images';

export interface OverlaySegment {
  segmentNumber: number;
  color: string;
  voxels: number;
  visible: boolean;
}

const { Labelmap } = tools.Enums.SegmentationRepresentations;

export class LabelmapOverlay {
  private readonly labelImages: core.Types.IImage[];
  private readonly imageOfSlice: number[];

  constructor(
    private readonly segmentationId: string,
    private readonly viewportId: string,
    images: SeriesImages,
    private readonly masks: Masks,
    segments: readonly OverlaySegment[],
  ) {
    this.imageOfSlice = matchSlices(images.positions, images.normal, masks.affineLps, masks.shapeKji[0]);
    this.labelImages = core.imageLoader.createAndCacheDerivedLabelmapImages(images.imageIds);
    this.paint(segments);
    tools.segmentation.addSegmentations([
      {
        segmentationId,
        representation: {
          type: Labelmap,
          data: { imageIds: this.labelImages.map((image) => image.imageId) },
        },
      },
    ]);
    tools.segmentation.addLabelmapRepresentationToViewportMap({
      [viewportId]: [{ segmentationId, type: Labelmap, config: { colorLUTOrIndex: colorTable(segments) } }],
    });
  }

  show(segments: readonly OverlaySegment[]): void {
    this.paint(segments);
    tools.segmentation.triggerSegmentationEvents.triggerSegmentationDataModified(this.segmentationId);
  }

  /** From 0 (unseen) to 1 (hides the image). */
  setOpacity(opacity: number): void {
    tools.segmentation.config.style.setStyle(
      { type: Labelmap, viewportId: this.viewportId, segmentationId: this.segmentationId },
      { renderFill: true, fillAlpha: opacity, renderOutline: true, outlineOpacity: 1, outlineWidth: 1.5 },
    );
    tools.segmentation.triggerSegmentationEvents.triggerSegmentationModified(this.segmentationId);
  }

  /** The image with most of a segment, or of all; null where nothing of it lies on these images. */
  densestImage(segmentNumber?: number): number | null {
    const [slices, rows, columns] = this.masks.shapeKji;
    const size = rows * columns;
    let densest: number | null = null;
    let most = 0;
    for (let k = 0; k < slices; k += 1) {
      let voxels = 0;
      for (const mask of this.masks.segments)
        if (segmentNumber === undefined || mask.segmentNumber === segmentNumber)
          forEachSetBit(mask.bits, k * size, size, () => {
            voxels += 1;
          });
      const image = this.imageOfSlice[k] ?? -1;
      if (voxels > most && image >= 0) {
        most = voxels;
        densest = image;
      }
    }
    return densest;
  }

  destroy(): void {
    tools.segmentation.removeSegmentationRepresentations(this.viewportId, {
      segmentationId: this.segmentationId,
      type: Labelmap,
    });
    tools.segmentation.removeSegmentation(this.segmentationId);
    for (const image of this.labelImages) core.cache.removeImageLoadObject(image.imageId, { force: true });
  }

  private paint(segments: readonly OverlaySegment[]): void {
    const [slices, rows, columns] = this.masks.shapeKji;
    const size = rows * columns;
    const largestFirst = segments.filter((segment) => segment.visible).sort((a, b) => b.voxels - a.voxels);
    for (let k = 0; k < slices; k += 1) {
      const image = this.labelImages[this.imageOfSlice[k] ?? -1];
      if (image === undefined || image.columns !== columns || image.rows !== rows) continue;
      const labels = new Uint8Array(size);
      for (const { segmentNumber } of largestFirst) {
        const mask = this.masks.segments.find((one) => one.segmentNumber === segmentNumber);
        if (mask === undefined) continue;
        forEachSetBit(mask.bits, k * size, size, (offset) => {
          labels[offset] = segmentNumber;
        });
      }
      image.voxelManager?.getScalarData().set(labels);
    }
  }
}

function colorTable(segments: readonly OverlaySegment[]): core.Types.ColorLUT {
  const table: core.Types.ColorLUT = [[0, 0, 0, 0]];
  for (const { segmentNumber, color } of segments) {
    while (table.length <= segmentNumber) table.push([0, 0, 0, 0]);
    table[segmentNumber] = [...rgbOf(color), 255];
  }
  return table;
}

export function rgbOf(color: string): [number, number, number] {
  const value = Number.parseInt(color.replace('#', ''), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}
