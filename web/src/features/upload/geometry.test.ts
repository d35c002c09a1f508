import { expect, it } from 'vitest';
import { faultsOf, formOf, NO_GEOMETRY } from './geometry';

const STACK = { ...NO_GEOMETRY, rowMm: '0,5', columnMm: '0.4', sliceMm: '2' };

it('says nothing when nothing was typed', () => {
  expect(faultsOf(NO_GEOMETRY, false)).toEqual({});
  expect(formOf(NO_GEOMETRY)).toBeNull();
});

it('wants all spacings of pictures, and all or none of volumes', () => {
  expect(faultsOf(NO_GEOMETRY, true)).toEqual({ rowMm: true, columnMm: true, sliceMm: true });
  expect(faultsOf({ ...NO_GEOMETRY, rowMm: '1' }, false)).toEqual({ columnMm: true, sliceMm: true });
});

it('takes a comma for a point, and refuses what is no size', () => {
  expect(faultsOf(STACK, true)).toEqual({});
  expect(faultsOf({ ...STACK, sliceMm: '-1' }, true)).toEqual({ sliceMm: true });
  expect(faultsOf({ ...STACK, rowMm: 'wide' }, true)).toEqual({ rowMm: true });
  expect(faultsOf({ ...STACK, slope: '0' }, true)).toEqual({ slope: true });
});

it('makes the form that the server takes', () => {
  expect(formOf({ ...STACK, modality: 'CT', reversed: true, slope: '2', intercept: '-1024' })).toEqual({
    modality: 'CT',
    pixel_spacing_mm: [0.5, 0.4],
    slice_spacing_mm: 2,
    orientation: 'axial',
    order: 'name-reversed',
    rescale_slope: 2,
    rescale_intercept: -1024,
  });
  expect(formOf({ ...NO_GEOMETRY, modality: 'MR' })).toEqual({ modality: 'MR' });
});
