/** A window for images whose header has none: what lies between the rare darkest and brightest pixels. Pure. */

const LOWER_QUANTILE = 0.005;
const UPPER_QUANTILE = 0.995;
/** Enough pixels for a quantile that the eye does not tell from the exact one; sorting more only takes time. */
const MAX_SAMPLES = 20_000;

export function contrastRange(pixels: ArrayLike<number>): { lower: number; upper: number } {
  const stride = Math.max(1, Math.floor(pixels.length / MAX_SAMPLES));
  const sample: number[] = [];
  for (let index = 0; index < pixels.length; index += stride) sample.push(pixels[index] ?? 0);
  sample.sort((a, b) => a - b);
  const lower = sample[Math.floor(LOWER_QUANTILE * (sample.length - 1))] ?? 0;
  const upper = sample[Math.ceil(UPPER_QUANTILE * (sample.length - 1))] ?? 1;
  return upper > lower ? { lower, upper } : { lower, upper: lower + 1 };
}
