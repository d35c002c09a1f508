import { expect, it } from 'vitest';
import { isoDateOf, numberOf, personNameOf } from './dicom-json';

const named = (value: unknown) => ({ '00100010': { vr: 'PN', Value: [value] } });

it('shows a name in the script of its person, the Latin one behind it', () => {
  const groups = { Alphabetic: 'Hong^Gildong', Ideographic: '洪^吉洞', Phonetic: '홍^길동' };
  expect(personNameOf(named(groups), '00100010')).toBe('홍 길동 (Hong Gildong)');
  expect(personNameOf(named({ Alphabetic: 'Doe^Jane' }), '00100010')).toBe('Doe Jane');
  expect(personNameOf({}, '00100010')).toBe('');
});

it('reads numbers that came as text, and leaves what is no date as it is', () => {
  expect(numberOf({ '00280010': { vr: 'DS', Value: ['12.5'] } }, '00280010')).toBe(12.5);
  expect(isoDateOf({ '00080020': { vr: 'DA', Value: ['20261124'] } }, '00080020')).toBe('2026-11-24');
  expect(isoDateOf({ '00080020': { vr: 'DA', Value: ['2026'] } }, '00080020')).toBe('2026');
});
