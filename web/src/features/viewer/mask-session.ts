/** One segmentation that is open in the viewer: its masks, how its segments are shown, and strokes upon it. */
import type { Segmentation } from '../../api/client';
import type { DescribedSegment } from '../../api/masks';
import type { Point } from '../../lib/affine';
import { Store } from '../../lib/store';
import { enclosedRegion, forEachPixelOfStroke } from './brush';
import { type PaintedSegment, rgbOf } from './mask-picture';
import { clearBit, hasBit, type MaskVolume, type SliceChange, sameBits, setBit } from './mask-volume';

export interface ShownSegment {
  segmentNumber: number;
  label: string;
  meaning: string;
  color: string;
  volumeMm3: number;
  voxels: number;
  visible: boolean;
  locked: boolean;
}

export interface MaskState {
  version: number;
  segments: readonly ShownSegment[];
  /** Grows with each change of a voxel. */
  edits: number;
}

export interface Tip {
  radius: number;
  aspect: number;
  erases: boolean;
  /** Which pixels may be marked; all where it is null. */
  accepts: ((index: number) => boolean) | null;
}

export class MaskSession {
  readonly state: Store<MaskState>;
  private stroke: { segmentNumber: number; slice: number; before: Uint8Array; after: Uint8Array } | null =
    null;

  constructor(
    readonly segmentation: Segmentation,
    readonly volume: MaskVolume,
    version: number,
  ) {
    this.state = new Store<MaskState>({ version, segments: segmentation.segments.map(shown), edits: 0 });
  }

  get id(): string {
    return this.segmentation.id;
  }

  get painted(): PaintedSegment[] {
    return this.state.get().segments.map(({ segmentNumber, color, voxels, visible }) => ({
      segmentNumber,
      rgb: rgbOf(color),
      voxels,
      visible,
    }));
  }

  /** After a save: what the server counted, under the version that it made; how things are shown stays. */
  saved(segmentation: Segmentation): void {
    const before = new Map(this.state.get().segments.map((one) => [one.segmentNumber, one]));
    const segments = segmentation.segments.map((one) => {
      const known = before.get(one.segment_number);
      return { ...shown(one), visible: known?.visible ?? true, locked: known?.locked ?? false };
    });
    this.state.update({ version: segmentation.version, segments });
  }

  change(segmentNumber: number, part: Partial<ShownSegment>): void {
    const segments = this.state
      .get()
      .segments.map((one) => (one.segmentNumber === segmentNumber ? { ...one, ...part } : one));
    this.state.update({ segments });
  }

  showAll(visible: boolean): void {
    this.state.update({ segments: this.state.get().segments.map((one) => ({ ...one, visible })) });
  }

  describe(segments: readonly ShownSegment[]): DescribedSegment[] {
    return segments.map(({ segmentNumber, label, color }) => ({
      segment_number: segmentNumber,
      label,
      color,
    }));
  }

  /** False where the segment takes no strokes. */
  beginStroke(segmentNumber: number, slice: number): boolean {
    const segment = this.state.get().segments.find((one) => one.segmentNumber === segmentNumber);
    if (segment === undefined || segment.locked) return false;
    const before = this.volume.slice(segmentNumber, slice);
    this.stroke = { segmentNumber, slice, before, after: before.slice() };
    this.volume.put(segmentNumber, slice, this.stroke.after);
    return true;
  }

  drag(from: Point, to: Point, tip: Tip): void {
    const stroke = this.stroke;
    if (stroke === null) return;
    const [, rows, columns] = this.volume.shapeKji;
    forEachPixelOfStroke({ rows, columns }, from, to, tip.radius, tip.aspect, (index) => {
      if (tip.accepts !== null && !tip.accepts(index)) return;
      if (tip.erases) clearBit(stroke.after, index);
      else setBit(stroke.after, index);
    });
    this.touch();
  }

  /** Marks what the segment encloses around a pixel. False where nothing encloses it. */
  fill(index: number): boolean {
    const stroke = this.stroke;
    if (stroke === null) return false;
    const [, rows, columns] = this.volume.shapeKji;
    const region = enclosedRegion({ rows, columns }, (at) => hasBit(stroke.after, at), index);
    for (const at of region ?? []) setBit(stroke.after, at);
    this.touch();
    return region !== null;
  }

  /** What the stroke changed; null for nothing. */
  endStroke(): SliceChange | null {
    const stroke = this.stroke;
    this.stroke = null;
    if (stroke === null || sameBits(stroke.before, stroke.after)) return null;
    return { ...stroke, after: stroke.after.slice() };
  }

  put(segmentNumber: number, slice: number, bits: Uint8Array): void {
    this.volume.put(segmentNumber, slice, bits.slice());
    this.touch();
  }

  private touch(): void {
    this.state.update({ edits: this.state.get().edits + 1 });
  }
}

function shown(segment: Segmentation['segments'][number]): ShownSegment {
  return {
    segmentNumber: segment.segment_number,
    label: segment.label,
    meaning: segment.code.meaning,
    color: segment.color,
    volumeMm3: segment.statistics.volume_mm3,
    voxels: segment.statistics.voxels,
    visible: true,
    locked: false,
  };
}
