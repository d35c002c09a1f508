/** The letters at the borders of an image: which side of the patient lies there (PS3.3 C.7.6.1.1.1, LPS). Pure. */
import type { Affine } from './affine';

export interface Sides {
  left: string;
  right: string;
  top: string;
  bottom: string;
}

const LEAST = 0.35;

/** `toScreen` tells which way columns and rows run on the screen. */
export function sidesOf(orientation: readonly number[], toScreen: Affine): Sides {
  const along = (x: number, y: number): string => {
    // The direction on the screen, told in the image's own axes, then in the patient's.
    const determinant = toScreen.a * toScreen.d - toScreen.b * toScreen.c;
    const column = (toScreen.d * x - toScreen.c * y) / determinant;
    const row = (toScreen.a * y - toScreen.b * x) / determinant;
    const direction = [0, 1, 2].map(
      (axis) => column * (orientation[axis] ?? 0) + row * (orientation[axis + 3] ?? 0),
    );
    return lettersOf(direction);
  };
  return { left: along(-1, 0), right: along(1, 0), top: along(0, -1), bottom: along(0, 1) };
}

/** The most telling letter first; a second one where the direction is oblique. */
function lettersOf(direction: readonly number[]): string {
  const length = Math.hypot(...direction) || 1;
  return direction
    .map((part, axis) => ({ size: Math.abs(part) / length, letter: letterOf(axis, part) }))
    .filter((one) => one.size > LEAST)
    .sort((a, b) => b.size - a.size)
    .slice(0, 2)
    .map((one) => one.letter)
    .join('');
}

function letterOf(axis: number, part: number): string {
  return (axis === 0 ? 'LR' : axis === 1 ? 'PA' : 'HF')[part > 0 ? 0 : 1] ?? '';
}
