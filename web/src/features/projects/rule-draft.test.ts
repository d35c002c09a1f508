import { expect, it } from 'vitest';
import type { NewRule, Rule } from '../../api/projects';
import { draftOf, problemOf, savingOrder, standing, stateOf, valueFor } from './rule-draft';

const rule = (part: Partial<NewRule> = {}): NewRule => ({
  effect: 'ALLOW',
  level: 'SERIES',
  attribute: 'Modality',
  operator: 'EQ',
  value: 'CT',
  role: null,
  user_id: null,
  valid_from: null,
  expires_at: null,
  ...part,
});
const saved = (id: string, part: Partial<NewRule> = {}) =>
  ({ ...rule(part), id, project_id: 'p', created_at: '', version: 1 }) as Rule;

it('tells what is new, changed and deleted from what stands', () => {
  const one = draftOf(saved('1'));
  expect(stateOf(one)).toBe('saved');
  expect(stateOf({ ...one, rule: rule({ value: 'MR' }) })).toBe('changed');
  expect(stateOf({ ...one, deleted: true })).toBe('deleted');
  expect(stateOf({ ...one, saved: null })).toBe('new');
  expect(standing([one, { ...one, deleted: true }])).toHaveLength(1);
});

it('refuses values that are not of the kind of their attribute', () => {
  expect(problemOf(rule(), 'text')).toBe(null);
  expect(problemOf(rule({ value: '' }), 'text')).toBe('rules.wrong.empty');
  expect(problemOf(rule({ value: '2024-01-31' }), 'date')).toBe(null);
  expect(problemOf(rule({ value: 'January' }), 'date')).toBe('rules.wrong.date');
  expect(problemOf(rule({ operator: 'RANGE', value: ['', ''] }), 'number')).toBe('rules.wrong.range');
  expect(problemOf(rule({ operator: 'RANGE', value: ['018Y', ''] }), 'age')).toBe(null);
  expect(problemOf(rule({ operator: 'IN', value: ['1', 'x'] }), 'number')).toBe('rules.wrong.number');
  expect(problemOf(rule({ operator: 'PRESENT', value: true }), 'date')).toBe(null);
});

it('keeps the value where another operator can take it', () => {
  expect(valueFor('IN', 'CT')).toEqual(['CT']);
  expect(valueFor('RANGE', '20240101')).toEqual(['20240101', '']);
  expect(valueFor('EQ', ['CT', 'MR'])).toBe('CT');
  expect(valueFor('PRESENT', 'CT')).toBe(true);
});

it('saves what narrows before what widens', () => {
  const fresh = (key: string, part: Partial<NewRule>) => ({
    key,
    saved: null,
    rule: rule(part),
    deleted: false,
  });
  const drafts = [
    { ...draftOf(saved('lifted', { effect: 'DENY' })), deleted: true },
    fresh('allow', {}),
    { ...draftOf(saved('withdrawn')), deleted: true },
    fresh('deny', { effect: 'DENY' }),
    draftOf(saved('same')),
  ];
  expect(savingOrder(drafts).map((one) => one.key)).toEqual(['deny', 'withdrawn', 'allow', 'lifted']);
});
