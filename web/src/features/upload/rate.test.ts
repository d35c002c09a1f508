import { describe, expect, it } from 'vitest';
import { LEAST_CHUNK_BYTES, MOST_CHUNK_BYTES, nextChunkBytes, Rate } from './rate';

describe('the rate', () => {
  it('is that of the last seconds, not of the whole time', () => {
    const rate = new Rate();
    for (let s = 0; s <= 60; s++) rate.add(s * 1000, s <= 30 ? s * 1000 : 30_000 + (s - 30) * 5000);
    expect(rate.bytesPerSecond(60_000)).toBeCloseTo(5000, 0);
    expect(rate.secondsLeft(60_000, 50_000)).toBeCloseTo(10, 0);
  });

  it('is told only once it can be', () => {
    const rate = new Rate();
    rate.add(0, 0);
    rate.add(500, 10);
    expect(rate.bytesPerSecond(500)).toBeNull();
    expect(rate.secondsLeft(500, 10)).toBeNull();
  });

  it('falls while nothing comes', () => {
    const rate = new Rate();
    rate.add(0, 0);
    rate.add(1000, 1000);
    expect(rate.bytesPerSecond(10_000)).toBe(100);
  });
});

describe('the next chunk', () => {
  it('holds what two seconds carry, within bounds', () => {
    expect(nextChunkBytes(4 << 20, 1000)).toBe(8 << 20);
    expect(nextChunkBytes(4 << 20, 60_000)).toBe(LEAST_CHUNK_BYTES);
    expect(nextChunkBytes(4 << 20, 0)).toBe(MOST_CHUNK_BYTES);
  });
});
