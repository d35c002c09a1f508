/** How labels and measurements of annotations read. Pure. */
import type { TFunction } from 'i18next';
import type { Annotation, ProjectLabel } from '../../api/annotations';
import type { Rough } from './shapes';

const UNIT: Record<string, string> = {
  mm: 'mm',
  mm2: 'mm²',
  mm3: 'mm³',
  deg: '°',
  "[hnsf'U]": 'HU',
  '{pixels}': 'px',
  '1': '',
};
const PLAIN_COLOR = '#4dd0e1';
/** In the order in which they are told; the rest is in the list of annotations. */
const TOLD = [
  'length',
  'long_axis',
  'short_axis',
  'angle',
  'cobb_angle',
  'area',
  'mean',
  'standard_deviation',
  'pixel_value',
];

export function labelOf(
  label: Annotation['label'],
  labels: readonly ProjectLabel[],
): ProjectLabel | undefined {
  const value = typeof label === 'string' ? label : label?.value;
  return labels.find((one) => one.value === value);
}

export function labelName(
  label: Annotation['label'] | undefined,
  labels: readonly ProjectLabel[],
  language: string,
): string {
  if (label === null || label === undefined) return '';
  const known = labelOf(label, labels);
  if (known !== undefined) return nameOf(known, language);
  return typeof label === 'string' ? label : label.meaning;
}

export function nameOf(label: ProjectLabel, language: string): string {
  return (language === 'ko' ? label.name_ko || label.name_en : label.name_en) || label.meaning;
}

export function colorOf(label: Annotation['label'], labels: readonly ProjectLabel[]): string {
  return labelOf(label, labels)?.color ?? PLAIN_COLOR;
}

export function measurementText(
  { measurements }: Pick<Annotation, 'measurements'>,
  language: string,
  t: TFunction,
): string[] {
  return TOLD.flatMap((name) =>
    measurements.filter((one) => one.name === name && one.source === 'server'),
  ).map(({ name, value, unit }) =>
    t(`annotation.measured.${name}`, { value: figure(value, unit, language) }),
  );
}

export function figure(value: number, unit: string, language: string): string {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : 2;
  const number = value.toLocaleString(language, { maximumFractionDigits: digits });
  const told = UNIT[unit] ?? unit;
  return told === '' || told === '°' ? number + told : `${number} ${told}`;
}

export function roughText({ kind, value }: Rough, inMm: boolean, t: TFunction): string {
  const unit = kind === 'angle' ? 'deg' : `${inMm ? 'mm' : 'px'}${kind === 'area' ? '²' : ''}`;
  return t(`annotation.rough.${kind}`, { value: figure(value, unit, 'en') });
}
