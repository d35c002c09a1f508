/**
 * Which pixels a stroke covers. Pure. Points are (column, row) with (0, 0) at the corner of the first pixel, so that its
 * centre is (0.5, 0.5); a pixel is covered when its centre lies within the brush.
 */
import type { Point } from '../../lib/affine';

export interface Grid {
  rows: number;
  columns: number;
}

/** Calls `visit` with the index (row * columns + column) of each pixel within `radius` of the line from a to b. */
export function forEachPixelOfStroke(
  grid: Grid,
  from: Point,
  to: Point,
  radius: number,
  /** Height of a pixel over its width: a brush is round in millimetres. */
  aspect: number,
  visit: (index: number) => void,
): void {
  const reach = radius / aspect;
  const firstRow = Math.max(0, Math.floor(Math.min(from[1], to[1]) - reach));
  const lastRow = Math.min(grid.rows - 1, Math.floor(Math.max(from[1], to[1]) + reach));
  const firstColumn = Math.max(0, Math.floor(Math.min(from[0], to[0]) - radius));
  const lastColumn = Math.min(grid.columns - 1, Math.floor(Math.max(from[0], to[0]) + radius));
  const dx = to[0] - from[0];
  const dy = (to[1] - from[1]) * aspect;
  const squared = dx * dx + dy * dy;
  // A brush smaller than a pixel still marks the pixel under its tip.
  visitTip(grid, from, visit);
  visitTip(grid, to, visit);
  for (let row = firstRow; row <= lastRow; row += 1) {
    const y = (row + 0.5 - from[1]) * aspect;
    for (let column = firstColumn; column <= lastColumn; column += 1) {
      const x = column + 0.5 - from[0];
      const along = squared === 0 ? 0 : Math.min(1, Math.max(0, (x * dx + y * dy) / squared));
      const offX = x - along * dx;
      const offY = y - along * dy;
      if (offX * offX + offY * offY <= radius * radius) visit(row * grid.columns + column);
    }
  }
}

function visitTip(grid: Grid, [x, y]: Point, visit: (index: number) => void): void {
  const column = Math.floor(x);
  const row = Math.floor(y);
  if (column >= 0 && row >= 0 && column < grid.columns && row < grid.rows) visit(row * grid.columns + column);
}

/**
 * The pixels that are enclosed by marked ones around `start`; null when the start is marked itself, or when nothing
 * encloses it, because a fill that floods the whole image is never meant.
 */
export function enclosedRegion(
  grid: Grid,
  isMarked: (index: number) => boolean,
  start: number,
): number[] | null {
  if (isMarked(start)) return null;
  const seen = new Uint8Array(grid.rows * grid.columns);
  const found = [start];
  seen[start] = 1;
  for (let next = 0; next < found.length; next += 1) {
    const index = found[next] as number;
    const column = index % grid.columns;
    const row = (index - column) / grid.columns;
    if (column === 0 || row === 0 || column === grid.columns - 1 || row === grid.rows - 1) return null;
    for (const neighbour of [index - 1, index + 1, index - grid.columns, index + grid.columns])
      if (seen[neighbour] === 0 && !isMarked(neighbour)) {
        seen[neighbour] = 1;
        found.push(neighbour);
      }
  }
  return found;
}
