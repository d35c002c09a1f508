import { describe, expect, it } from 'vitest';
import { affineOf, apply, inverse, scaleOf } from './affine';
import { sidesOf } from './orientation';
import { shortcutOf } from './shortcut';
import { slicesOfImages } from './slice-order';
import { newUuid } from './uuid';

describe('affine maps', () => {
  it('go where their three points go, and back', () => {
    const map = affineOf([10, 20], [12, 20], [10, 23]);
    expect(apply(map, [2, 3])).toEqual([14, 29]);
    const back = inverse(map);
    const [x, y] = apply(back ?? map, [14, 29]);
    expect([x.toFixed(9), y.toFixed(9)]).toEqual(['2.000000000', '3.000000000']);
    expect(scaleOf(map)).toBeCloseTo(Math.sqrt(6));
  });

  it('have no way back where they flatten the plane', () => {
    expect(inverse(affineOf([0, 0], [1, 1], [2, 2]))).toBeNull();
  });
});

describe('the sides of the patient', () => {
  const upright = affineOf([0, 0], [2, 0], [0, 2]);

  it('are those of an axial image', () => {
    expect(sidesOf([1, 0, 0, 0, 1, 0], upright)).toEqual({ left: 'R', right: 'L', top: 'A', bottom: 'P' });
  });

  it('are those of a coronal and of a mirrored image', () => {
    expect(sidesOf([1, 0, 0, 0, 0, -1], upright)).toMatchObject({ top: 'H', bottom: 'F' });
    expect(sidesOf([1, 0, 0, 0, 1, 0], affineOf([9, 0], [7, 0], [9, 2]))).toMatchObject({
      left: 'L',
      right: 'R',
    });
  });

  it('have two letters on an oblique image', () => {
    const half = Math.SQRT1_2;
    expect(sidesOf([half, half, 0, 0, 0, -1], upright).right).toHaveLength(2);
  });
});

describe('shortcuts', () => {
  const press = (key: string, code: string, more = {}) =>
    shortcutOf({ key, code, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...more });

  it('are told by the place of the key, whatever language is typed', () => {
    expect(press('ㅈ', 'KeyW')).toBe('w');
    expect(press('w', 'KeyW')).toBe('w');
  });

  it('name their modifiers in one order', () => {
    expect(press('Z', 'KeyZ', { ctrlKey: true, shiftKey: true })).toBe('mod+shift+z');
    expect(press('z', 'KeyZ', { metaKey: true })).toBe('mod+z');
  });

  it('take signs as they are typed', () => {
    expect(press('?', 'Slash', { shiftKey: true })).toBe('?');
    expect(press('[', 'BracketLeft')).toBe('[');
    expect(press('1', 'Digit1')).toBe('1');
    expect(press('ArrowDown', 'ArrowDown')).toBe('ArrowDown');
  });
});

it('slices of images are images of slices the other way round', () => {
  expect(slicesOfImages([2, -1, 0], 4)).toEqual([2, -1, 0, -1]);
});

it('identifiers have the form of a random UUID', () => {
  expect(newUuid()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
