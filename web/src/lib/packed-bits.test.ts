import { expect, it } from 'vitest';
import { forEachSetBit } from './packed-bits';

it('visits the set bits of a range that begins and ends inside bytes, lowest bit first', () => {
  const bits = new Uint8Array([0b1000_0001, 0, 0b0000_0110]);
  const seen: number[] = [];
  forEachSetBit(bits, 7, 11, (offset) => seen.push(offset));
  expect(seen).toEqual([0, 10]);
  seen.length = 0;
  forEachSetBit(bits, 0, 24, (offset) => seen.push(offset));
  expect(seen).toEqual([0, 7, 17, 18]);
});
