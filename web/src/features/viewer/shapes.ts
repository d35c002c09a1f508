/**
 * The shapes of annotations in pixels: how they are outlined, grasped, moved and roughly measured while they are drawn.
 * The points of each type are those of the server (docs/explanation/annotations.md). Pure.
 */
import { distance, type Point } from '../../lib/affine';

export type ShapeType =
  | 'length'
  | 'angle'
  | 'bidirectional'
  | 'rectangle'
  | 'ellipse'
  | 'polygon'
  | 'freehand'
  | 'arrow'
  | 'probe';

export interface Shape {
  type: string;
  points: readonly Point[];
  closed?: boolean | null;
}

export interface Outline {
  points: Point[];
  closed: boolean;
}

const ELLIPSE_CORNERS = 64;

/** The lines to draw. Points alone (probe) have none. */
export function outlinesOf({ type, points, closed }: Shape): Outline[] {
  const line = (...of: (Point | undefined)[]): Outline => ({
    points: of.filter((one): one is Point => one !== undefined),
    closed: false,
  });
  switch (type) {
    case 'probe':
    case 'point':
      return [];
    case 'bidirectional':
    case 'cobb_angle':
      return [line(points[0], points[1]), line(points[2], points[3])].filter((one) => one.points.length > 1);
    case 'rectangle':
      return [{ points: cornersOf(points), closed: true }];
    case 'ellipse':
      return [{ points: ellipseOf(points), closed: true }];
    case 'polygon':
      return [{ points: [...points], closed: true }];
    case 'freehand':
    case 'spline':
      return [{ points: [...points], closed: closed !== false }];
    default:
      return [line(...points)];
  }
}

/** Four corners; of two opposite ones along rows and columns. */
export function cornersOf(points: readonly Point[]): Point[] {
  const [first, second] = points;
  if (points.length !== 2 || first === undefined || second === undefined) return [...points];
  return [first, [second[0], first[1]], second, [first[0], second[1]]];
}

function ellipseOf(points: readonly Point[]): Point[] {
  const [a, b, c, d] = points;
  if (a === undefined || b === undefined) return [];
  // The box around it, or the ends of one axis and then of the other.
  const [center, u, v]: [Point, Point, Point] =
    c === undefined || d === undefined
      ? [middle(a, b), [(b[0] - a[0]) / 2, 0], [0, (b[1] - a[1]) / 2]]
      : [middle(a, b), minus(b, middle(a, b)), minus(d, middle(a, b))];
  return Array.from({ length: ELLIPSE_CORNERS }, (_, n): Point => {
    const turn = (2 * Math.PI * n) / ELLIPSE_CORNERS;
    const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
    return [center[0] + cos * u[0] + sin * v[0], center[1] + cos * u[1] + sin * v[1]];
  });
}

/** Long axis drawn: the short one stands upright on its middle, half as long, to be pulled where it belongs. */
export function withShortAxis(from: Point, to: Point): Point[] {
  const [mx, my] = middle(from, to);
  const [dx, dy] = [(to[0] - from[0]) / 4, (to[1] - from[1]) / 4];
  return [from, to, [mx - dy, my + dx], [mx + dy, my - dx]];
}

/** A shape of each kind over the middle of an image, a quarter of it wide: where keys begin. */
export function middleOf(type: ShapeType, columns: number, rows: number): Point[] {
  const [x, y, reach] = [columns / 2, rows / 2, Math.min(columns, rows) / 8];
  const [left, right]: [Point, Point] = [
    [x - reach, y],
    [x + reach, y],
  ];
  const corners: Point[] = [
    [x - reach, y - reach],
    [x + reach, y + reach],
  ];
  switch (type) {
    case 'probe':
      return [[x, y]];
    case 'angle':
      return [[x, y - reach], left, right];
    case 'bidirectional':
      return withShortAxis(left, right);
    case 'rectangle':
    case 'ellipse':
      return corners;
    case 'polygon':
    case 'freehand':
      return cornersOf(corners);
    default:
      return [left, right];
  }
}

export function moved(points: readonly Point[], by: Point): Point[] {
  return points.map((point): Point => [point[0] + by[0], point[1] + by[1]]);
}

export function withPoint(points: readonly Point[], index: number, point: Point): Point[] {
  return points.map((old, at) => (at === index ? point : old));
}

/** Within the frame: the server refuses a point outside of it. */
export function within(points: readonly Point[], columns: number, rows: number): Point[] {
  return points.map(([x, y]): Point => [Math.min(Math.max(x, 0), columns), Math.min(Math.max(y, 0), rows)]);
}

/** A path drawn by hand has a point for each movement of the mouse: those nearer than `least` to the last are left out. */
export function thinned(points: readonly Point[], least: number): Point[] {
  const kept: Point[] = [];
  for (const point of points) {
    const last = kept.at(-1);
    if (last === undefined || distance(last, point) >= least) kept.push(point);
  }
  return kept;
}

export interface Spacing {
  columnMm: number;
  rowMm: number;
}

export type Rough = { kind: 'length' | 'area' | 'angle'; value: number };

/** What is told while somebody draws; null where the shape is not complete. Without a spacing in pixels. */
export function roughMeasure(shape: Shape, spacing: Spacing | null): Rough | null {
  const scaled = shape.points.map(
    ([x, y]): Point => [x * (spacing?.columnMm ?? 1), y * (spacing?.rowMm ?? 1)],
  );
  const [a, b, c] = scaled;
  if (a === undefined || b === undefined) return null;
  if (shape.type === 'length' || shape.type === 'bidirectional')
    return { kind: 'length', value: distance(a, b) };
  if (shape.type === 'angle') return c === undefined ? null : { kind: 'angle', value: angleAt(b, a, c) };
  const [outline] = outlinesOf({ ...shape, points: scaled });
  if (outline?.closed && outline.points.length > 2) return { kind: 'area', value: areaOf(outline.points) };
  return null;
}

export function angleAt(vertex: Point, a: Point, b: Point): number {
  const [ux, uy] = minus(a, vertex);
  const [vx, vy] = minus(b, vertex);
  return (Math.abs(Math.atan2(ux * vy - uy * vx, ux * vx + uy * vy)) * 180) / Math.PI;
}

export function areaOf(corners: readonly Point[]): number {
  let doubled = 0;
  for (const [index, [x, y]] of corners.entries()) {
    const [nextX, nextY] = corners[(index + 1) % corners.length] as Point;
    doubled += x * nextY - nextX * y;
  }
  return Math.abs(doubled) / 2;
}

/** Where the text of a shape stands: right of its rightmost point. */
export function textPlace(shape: Shape): Point {
  const drawn = outlinesOf(shape).flatMap((one) => one.points);
  const points = drawn.length > 0 ? drawn : shape.points;
  return points.reduce((best, point) => (point[0] > best[0] ? point : best), points[0] ?? [0, 0]);
}

function middle([ax, ay]: Point, [bx, by]: Point): Point {
  return [(ax + bx) / 2, (ay + by) / 2];
}

function minus([ax, ay]: Point, [bx, by]: Point): Point {
  return [ax - bx, ay - by];
}
