import { expect, it } from 'vitest';
import { contrastRange } from './contrast-range';

it('leaves out rare outliers and never is empty', () => {
  const pixels = Float32Array.from({ length: 10_000 }, (_, index) => index % 1000);
  pixels[5] = 1e6;
  const range = contrastRange(pixels);
  expect(range.upper).toBeLessThan(1000);
  expect(range.lower).toBeLessThan(10);
  expect(contrastRange(new Uint8Array(16))).toEqual({ lower: 0, upper: 1 });
});
