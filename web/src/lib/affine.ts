/** Affine maps of the plane, as canvas and SVG write them: x' = a x + c y + e, y' = b x + d y + f. Pure. */
export type Point = readonly [number, number];

export interface Affine {
  a: number;
  b: number;
  c: number;
  d: number;
  e: number;
  f: number;
}

/** From where (0, 0), (1, 0) and (0, 1) go. */
export function affineOf(origin: Point, alongX: Point, alongY: Point): Affine {
  return {
    a: alongX[0] - origin[0],
    b: alongX[1] - origin[1],
    c: alongY[0] - origin[0],
    d: alongY[1] - origin[1],
    e: origin[0],
    f: origin[1],
  };
}

export function apply(map: Affine, [x, y]: Point): Point {
  return [map.a * x + map.c * y + map.e, map.b * x + map.d * y + map.f];
}

/** Null where the map flattens the plane. */
export function inverse(map: Affine): Affine | null {
  const determinant = map.a * map.d - map.b * map.c;
  if (!Number.isFinite(determinant) || Math.abs(determinant) < 1e-12) return null;
  return {
    a: map.d / determinant,
    b: -map.b / determinant,
    c: -map.c / determinant,
    d: map.a / determinant,
    e: (map.c * map.f - map.d * map.e) / determinant,
    f: (map.b * map.e - map.a * map.f) / determinant,
  };
}

/** How much longer lengths get, on average over directions. */
export function scaleOf(map: Affine): number {
  return Math.sqrt(Math.abs(map.a * map.d - map.b * map.c));
}

export function distance([ax, ay]: Point, [bx, by]: Point): number {
  return Math.hypot(bx - ax, by - ay);
}
