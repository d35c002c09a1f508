import { describe, expect, it } from 'vitest';
import { type Held, type Item, PACK_BYTES, PACK_FILES, parcelsOf, setsOf } from './plan';

const item = (path: string, part: Partial<Item> = {}): Item => ({
  path,
  size: 1000,
  way: 'pack',
  form: null,
  ...part,
});
const held = (path: string, kind: Held['kind'], text: string | null = null): Held => ({ path, kind, text });
const FORM = { pixel_spacing_mm: [1, 1] as [number, number], slice_spacing_mm: 2 };

describe('parcels', () => {
  it('puts every file into exactly one, in the order of the manifest', () => {
    const items = Array.from({ length: 1300 }, (_, n) => item(`a/${n}`));
    const parcels = parcelsOf(items);
    expect(parcels.flatMap((one) => one.items)).toEqual(items);
    expect(parcels.map((one) => one.items.length)).toEqual([PACK_FILES, PACK_FILES, 276]);
  });

  it('closes a pack before it grows too large', () => {
    const half = PACK_BYTES / 2;
    const parcels = parcelsOf([item('a', { size: half }), item('b', { size: half }), item('c', { size: 1 })]);
    expect(parcels.map((one) => one.items.map(({ path }) => path))).toEqual([['a', 'b'], ['c']]);
  });

  it('sends archives and volumes as they are, and folders whole with their form', () => {
    const parcels = parcelsOf([
      item('v.nii', { way: 'alone', form: '{}' }),
      item('s/1.png', { way: 'together', form: 'F' }),
      item('t/1.png', { way: 'together', form: 'G' }),
      item('s/2.png', { way: 'together', form: 'F' }),
    ]);
    expect(parcels).toEqual([
      expect.objectContaining({ own: true, form: '{}' }),
      expect.objectContaining({
        own: false,
        form: 'F',
        items: [
          item('s/1.png', { way: 'together', form: 'F' }),
          item('s/2.png', { way: 'together', form: 'F' }),
        ],
      }),
      expect.objectContaining({ own: false, form: 'G' }),
    ]);
  });
});

describe('folders that are read together', () => {
  it('asks about pictures that nobody has told the geometry of', () => {
    const found = setsOf([held('s/1.png', 'picture'), held('s/2.png', 'picture')], null);
    expect(found.sets).toEqual([]);
    expect(found.formless.map(({ path }) => path)).toEqual(['s/1.png', 's/2.png']);
  });

  it('takes the form beside them, above them, or of the person, in this order', () => {
    const pictures = [
      held('a/b/s/1.png', 'picture'),
      held('a/t/1.png', 'picture'),
      held('u/1.png', 'picture'),
    ];
    const forms = [held('a/geometry.json', 'form', 'above'), held('a/t/geometry.json', 'form', 'beside')];
    const found = setsOf([...pictures, ...forms], FORM);
    expect(found.sets.map(({ items, form }) => [items.map(({ path }) => path), form])).toEqual([
      [['a/b/s/1.png'], 'above'],
      [['a/t/1.png', 'a/t/geometry.json'], JSON.stringify(FORM)],
      [['u/1.png'], JSON.stringify(FORM)],
    ]);
  });

  it('does not take a form without spacings for an answer', () => {
    expect(setsOf([held('s/1.png', 'picture')], { modality: 'CT' }).formless).toHaveLength(1);
  });

  it('keeps a header with its data, and leaves out data that no header names', () => {
    const found = setsOf([held('v/x.mhd', 'header'), held('v/x.raw', 'data'), held('w/y.raw', 'data')], null);
    expect(found.sets).toEqual([{ items: [held('v/x.mhd', 'header'), held('v/x.raw', 'data')], form: null }]);
    expect(found.idle).toEqual([held('w/y.raw', 'data')]);
  });
});
