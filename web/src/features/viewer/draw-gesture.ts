/**
 * From presses and releases to a shape: two points by dragging or by two clicks, corners by clicks until the first one or
 * a double click closes them, a freehand line while the button is down. Pure.
 */
import { distance, type Point } from '../../lib/affine';
import { type Shape, type ShapeType, thinned, withShortAxis } from './shapes';

export interface Draft {
  type: ShapeType;
  points: readonly Point[];
  /** Where the pointer is: the end of the rubber band. */
  hover: Point | null;
  pressed: boolean;
}

export interface Progress {
  draft: Draft | null;
  done: Shape | null;
}

const POINTS: Partial<Record<ShapeType, number>> = {
  probe: 1,
  length: 2,
  arrow: 2,
  bidirectional: 2,
  rectangle: 2,
  ellipse: 2,
  angle: 3,
};
/** Of a freehand line, in pixels of the image: a third of one is as fine as anybody draws. */
const FREEHAND_STEP = 0.34;

/** `near` is what counts as the same place, in pixels of the image. */
export function pressed(draft: Draft | null, type: ShapeType, at: Point, near: number): Progress {
  const points = draft?.points ?? [];
  const first = points[0];
  if (type === 'polygon' && first !== undefined && points.length >= 3 && distance(first, at) <= near)
    return finished(type, points);
  return advanced({ type, points: [...points, at], hover: at, pressed: true });
}

export function hovered(draft: Draft, at: Point): Draft {
  if (draft.type === 'freehand' && draft.pressed)
    return { ...draft, points: [...draft.points, at], hover: at };
  return { ...draft, hover: at };
}

export function released(draft: Draft, at: Point, near: number): Progress {
  const up = { ...draft, pressed: false };
  if (draft.type === 'freehand') {
    const line = thinned(draft.points, FREEHAND_STEP);
    return line.length >= 3 ? finished('freehand', line) : { draft: null, done: null };
  }
  const last = draft.points.at(-1);
  const dragged = draft.pressed && last !== undefined && distance(last, at) > near;
  return dragged && draft.type !== 'polygon'
    ? advanced({ ...up, points: [...draft.points, at] })
    : { draft: up, done: null };
}

/** Enter or a double click: a polygon is closed with what it has. A double click has set its last corner twice. */
export function closed(draft: Draft, near: number): Progress {
  if (draft.type !== 'polygon') return { draft, done: null };
  const corners = thinned(draft.points, near / 2);
  return corners.length >= 3 ? finished('polygon', corners) : { draft, done: null };
}

function advanced(draft: Draft): Progress {
  return draft.points.length === POINTS[draft.type]
    ? finished(draft.type, draft.points)
    : { draft, done: null };
}

function finished(type: ShapeType, points: readonly Point[]): Progress {
  const [from, to] = points;
  const flat = from !== undefined && to !== undefined && points.length === 2 && distance(from, to) === 0;
  if (flat) return { draft: null, done: null };
  if (type === 'bidirectional' && from && to)
    return { draft: null, done: { type, points: withShortAxis(from, to) } };
  return { draft: null, done: { type, points, ...(type === 'freehand' && { closed: true }) } };
}

/** What is shown of a draft: its points and the rubber band. */
export function preview(draft: Draft): Shape {
  const points =
    draft.hover === null || draft.type === 'freehand' ? draft.points : [...draft.points, draft.hover];
  if (draft.type === 'bidirectional') return { type: 'length', points };
  if (draft.type === 'polygon' || draft.type === 'freehand')
    return { type: 'freehand', points, closed: false };
  return { type: draft.type, points };
}
