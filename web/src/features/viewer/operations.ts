/**
 * The log of what somebody did and the server has not acknowledged yet. An operation's id is its idempotency key: sent
 * twice it is done once. Pure: how operations combine, and what a list looks like with them upon it.
 */
import type { Annotation, NewAnnotation, Patch } from '../../api/annotations';
import type { DescribedSegment } from '../../api/masks';
import { sameBits } from './mask-volume';

interface Shared {
  id: string;
  /** Which annotation or segmentation; an annotation that is not stored yet has a name of this browser's. */
  object: string;
  studyUid: string;
  userId: string;
  /** The open page that sends it; another takes it over when that one is gone. */
  tab: string;
  /** Milliseconds since 1970 and, within one, the order of the making. */
  at: number;
  /** What the server said against it: then it waits for a person. */
  refused?: { slug: string; message: string; problem: Record<string, unknown> };
}

export interface PaintedSlice {
  segmentNumber: number;
  slice: number;
  bits: Uint8Array;
}

export type Work =
  | { kind: 'annotation.create'; body: NewAnnotation }
  | { kind: 'annotation.edit'; base: number; patch: Patch }
  | { kind: 'annotation.delete'; base: number }
  | { kind: 'annotation.restore'; version: number }
  | {
      kind: 'masks.save';
      base: number;
      shapeKji: [number, number, number];
      slices: PaintedSlice[];
      describe: DescribedSegment[] | null;
    };

export type Operation = Shared & Work;

/**
 * The log after one more operation. What was not sent yet and belongs to the same object becomes one operation with it,
 * under the new id: a key that was never sent is nobody's. `sent` names what is or may be on its way.
 */
export function appended(
  log: readonly Operation[],
  next: Operation,
  sent: ReadonlySet<string>,
): { log: Operation[]; dropped: string[] } {
  const previous = log.filter((one) => one.object === next.object && one.tab === next.tab).at(-1);
  if (previous === undefined || sent.has(previous.id) || previous.refused !== undefined)
    return { log: [...log, next], dropped: [] };
  const merged = combined(previous, next);
  if (merged === 'apart') return { log: [...log, next], dropped: [] };
  const rest = log.filter((one) => one !== previous);
  return { log: merged === 'nothing' ? rest : [...rest, merged], dropped: [previous.id] };
}

function combined(a: Operation, b: Operation): Operation | 'nothing' | 'apart' {
  if (a.kind === 'annotation.create') {
    if (b.kind === 'annotation.edit')
      return { ...a, id: b.id, at: b.at, body: { ...a.body, ...b.patch } as NewAnnotation };
    if (b.kind === 'annotation.delete') return 'nothing';
  }
  if (a.kind === 'annotation.edit') {
    if (b.kind === 'annotation.edit') return { ...b, base: a.base, patch: { ...a.patch, ...b.patch } };
    if (b.kind === 'annotation.delete') return { ...b, base: a.base };
  }
  if (a.kind === 'annotation.delete' && b.kind === 'annotation.restore') return 'nothing';
  if (a.kind === 'masks.save' && b.kind === 'masks.save')
    return {
      ...b,
      base: a.base,
      slices: latestSlices(a.slices, b.slices),
      describe: b.describe ?? a.describe,
    };
  return 'apart';
}

/** Of each slice the last that was painted. */
export function latestSlices(older: readonly PaintedSlice[], newer: readonly PaintedSlice[]): PaintedSlice[] {
  const latest = new Map<string, PaintedSlice>();
  for (const one of [...older, ...newer]) latest.set(`${one.segmentNumber}:${one.slice}`, one);
  return [...latest.values()];
}

/** After an acknowledgement: what follows it on the same object starts from the version that it made. */
export function acknowledged(
  log: readonly Operation[],
  done: Operation,
  result: { object: string; version: number },
): Operation[] {
  return log
    .filter((one) => one.id !== done.id)
    .map((one) => {
      if (one.object !== done.object || one.tab !== done.tab || one.refused !== undefined) return one;
      const renamed = { ...one, object: result.object };
      return 'base' in renamed ? { ...renamed, base: result.version } : renamed;
    });
}

/** What is to be sent next: the oldest of each object, unless something of that object waits for a person. */
export function sendable(log: readonly Operation[]): Operation[] {
  const blocked = new Set(log.filter((one) => one.refused !== undefined).map((one) => one.object));
  const seen = new Set<string>();
  return log.filter((one) => {
    if (blocked.has(one.object) || seen.has(one.object)) return false;
    seen.add(one.object);
    return true;
  });
}

export interface ShownAnnotation extends Annotation {
  pending: boolean;
  refused: boolean;
}

/** The annotations of a study as the person left them. */
export function withOperations(
  stored: readonly Annotation[],
  log: readonly Operation[],
  author: string,
): ShownAnnotation[] {
  const shown = new Map(stored.map((one) => [one.id, { ...one, pending: false, refused: false }]));
  for (const one of log) {
    const refused = one.refused !== undefined;
    const known = shown.get(one.object);
    if (one.kind === 'annotation.create')
      shown.set(one.object, { ...draftOf(one, one.body, author), pending: true, refused });
    else if (one.kind === 'annotation.edit' && known !== undefined)
      shown.set(one.object, { ...known, ...patched(one.patch), pending: true, refused });
    else if (one.kind === 'annotation.delete') shown.delete(one.object);
  }
  return [...shown.values()];
}

function patched(patch: Patch): Partial<Annotation> {
  const { geometry, ...rest } = patch;
  if (geometry === undefined) return rest as Partial<Annotation>;
  // What the server measured belongs to the shape as it was.
  return {
    ...rest,
    geometry,
    mapped_geometry: null,
    measurements: [],
    state: 'draft',
  } as Partial<Annotation>;
}

function draftOf(operation: Operation, body: NewAnnotation, author: string): Annotation {
  const now = new Date(operation.at).toISOString();
  return {
    id: operation.object,
    project_id: body.project_id,
    study_instance_uid: body.study_instance_uid,
    series_instance_uid: body.series_instance_uid ?? null,
    sop_instance_uid: body.sop_instance_uid ?? null,
    frame_number: body.frame_number ?? null,
    tracking_uid: '',
    kind: body.kind,
    geometry: body.geometry ?? { type: 'none', points: [] },
    mapped_geometry: null,
    label: body.label ?? null,
    attributes: {},
    measurements: [],
    description: body.description ?? '',
    tool: body.tool,
    model: body.model,
    assigned_to: null,
    state: 'draft',
    version: 0,
    created_by: operation.userId,
    author,
    updated_by: operation.userId,
    created_at: now,
    updated_at: now,
    deleted_at: null,
    study_stored: true,
  };
}

export interface SliceConflict {
  segmentNumber: number;
  slice: number;
  /** Whether the other person changed this slice too, to something else. */
  both: boolean;
}

/** My slices against what stands now: which of them the other changed as well since the version that I started from. */
export function sliceConflicts(
  mine: readonly PaintedSlice[],
  base: (segmentNumber: number, slice: number) => Uint8Array,
  theirs: (segmentNumber: number, slice: number) => Uint8Array,
): SliceConflict[] {
  return mine.map(({ segmentNumber, slice, bits }) => {
    const now = theirs(segmentNumber, slice);
    const changed = !sameBits(now, base(segmentNumber, slice));
    return { segmentNumber, slice, both: changed && !sameBits(now, bits) };
  });
}
