/** The geometry form as fields of text, and what it says when they make sense. */
import type { GeometryForm } from './messages';

export const MODALITIES = ['MR', 'CT', 'PT', 'NM', 'US', 'XA', 'OT'] as const;
export const ORIENTATIONS = ['axial', 'coronal', 'sagittal'] as const;
/** The server's bound: no voxel is larger than ten metres. */
const MAX_MM = 1e4;

export interface GeometryFields {
  modality: string | null;
  orientation: string;
  rowMm: string;
  columnMm: string;
  sliceMm: string;
  reversed: boolean;
  slope: string;
  intercept: string;
}

export const NO_GEOMETRY: GeometryFields = {
  modality: null,
  orientation: 'axial',
  rowMm: '',
  columnMm: '',
  sliceMm: '',
  reversed: false,
  slope: '',
  intercept: '',
};

export type Faults = Partial<Record<'rowMm' | 'columnMm' | 'sliceMm' | 'slope' | 'intercept', true>>;

export function faultsOf(fields: GeometryFields, spacingNeeded: boolean): Faults {
  const faults: Faults = {};
  const some = spacingNeeded || [fields.rowMm, fields.columnMm, fields.sliceMm].some((text) => text.trim());
  for (const name of ['rowMm', 'columnMm', 'sliceMm'] as const) {
    const value = numberOf(fields[name]);
    if (some && !(value !== null && value > 1e-6 && value <= MAX_MM)) faults[name] = true;
  }
  if (fields.slope.trim() && !numberOf(fields.slope)) faults.slope = true;
  if (fields.intercept.trim() && numberOf(fields.intercept) === null) faults.intercept = true;
  return faults;
}

/** Null when it says nothing. Call it without faults only. */
export function formOf(fields: GeometryFields): GeometryForm | null {
  const form: GeometryForm = {};
  const [row, column, slice] = [fields.rowMm, fields.columnMm, fields.sliceMm].map(numberOf);
  const slope = numberOf(fields.slope);
  const intercept = numberOf(fields.intercept);
  if (fields.modality) form.modality = fields.modality as NonNullable<GeometryForm['modality']>;
  if (row != null && column != null && slice != null) {
    form.pixel_spacing_mm = [row, column];
    form.slice_spacing_mm = slice;
    form.orientation = fields.orientation as NonNullable<GeometryForm['orientation']>;
    if (fields.reversed) form.order = 'name-reversed';
    if (slope !== null) form.rescale_slope = slope;
    if (intercept !== null) form.rescale_intercept = intercept;
  }
  return Object.keys(form).length > 0 ? form : null;
}

/** A comma is a decimal point to half of the world. */
function numberOf(text: string): number | null {
  const value = Number(text.trim().replace(',', '.'));
  return text.trim() !== '' && Number.isFinite(value) ? value : null;
}
