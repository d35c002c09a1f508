import { describe, expect, it } from 'vitest';
import type { NewAnnotation } from '../../api/annotations';
import {
  acknowledged,
  appended,
  latestSlices,
  type Operation,
  sendable,
  sliceConflicts,
  type Work,
  withOperations,
} from './operations';

let at = 0;
const NONE = new Set<string>();

function operation(object: string, work: Work, more: Partial<Operation> = {}): Operation {
  at += 1;
  return {
    id: `op-${at}`,
    object,
    studyUid: '1.2',
    userId: 'me',
    tab: 'tab',
    at,
    ...work,
    ...more,
  } as Operation;
}

const BODY: NewAnnotation = {
  project_id: 'p',
  study_instance_uid: '1.2',
  kind: 'measurement',
  tool: 'length',
  model: '',
  geometry: {
    type: 'length',
    space: 'pixel',
    points: [
      [1, 1],
      [5, 5],
    ],
  },
  description: '',
  why: '',
};
const create = (object: string, more = {}) =>
  operation(object, { kind: 'annotation.create', body: BODY }, more);
const edit = (object: string, patch: object, base = 1) =>
  operation(object, { kind: 'annotation.edit', base, patch });
const remove = (object: string, base = 1) => operation(object, { kind: 'annotation.delete', base });
const paint = (object: string, slice: number, byte: number, base = 1) =>
  operation(object, {
    kind: 'masks.save',
    base,
    shapeKji: [4, 2, 4],
    slices: [{ segmentNumber: 1, slice, bits: new Uint8Array([byte]) }],
    describe: null,
  });

function logOf(...operations: Operation[]): Operation[] {
  return operations.reduce<Operation[]>((log, one) => appended(log, one, NONE).log, []);
}

describe('the operation log', () => {
  it('makes one operation of edits that were not sent yet', () => {
    const log = logOf(create('a'), edit('a', { description: 'x' }), edit('a', { label: 'nodule' }));
    expect(log).toHaveLength(1);
    expect(log[0]).toMatchObject({ kind: 'annotation.create', body: { description: 'x', label: 'nodule' } });
  });

  it('forgets what was made and deleted before anybody heard of it', () => {
    expect(logOf(create('a'), remove('a'))).toEqual([]);
  });

  it('keeps an operation under way as it was sent, because its key is bound to it', () => {
    const first = create('a');
    const { log } = appended([first], edit('a', { description: 'x' }, 0), new Set([first.id]));
    expect(log.map((one) => one.kind)).toEqual(['annotation.create', 'annotation.edit']);
    expect(log[0]).toBe(first);
  });

  it('gives a combined operation a key of its own and names the one that it replaces', () => {
    const first = paint('m', 0, 1);
    const second = paint('m', 0, 3);
    const { log, dropped } = appended([first], second, NONE);
    expect(log.map((one) => one.id)).toEqual([second.id]);
    expect(dropped).toEqual([first.id]);
  });

  it('keeps of each slice the last stroke, and the version from which the first one started', () => {
    const [saved] = logOf(paint('m', 0, 1, 3), paint('m', 2, 7, 3), paint('m', 0, 5, 3));
    expect(saved).toMatchObject({ kind: 'masks.save', base: 3 });
    const slices = saved?.kind === 'masks.save' ? saved.slices : [];
    expect(slices.map((one) => [one.slice, one.bits[0]]).sort()).toEqual([
      [0, 5],
      [2, 7],
    ]);
  });

  it('never mixes the work of two tabs, which may have started from different versions', () => {
    const other = { ...paint('m', 0, 1), tab: 'other' };
    expect(appended([other], paint('m', 0, 2), NONE).log).toHaveLength(2);
  });

  it('lets what follows start from the version that was acknowledged, under the name that the server gave', () => {
    const first = create('local');
    const next = edit('local', { description: 'x' }, 0);
    const [left] = acknowledged([first, next], first, { object: 'server', version: 1 });
    expect(left).toMatchObject({ object: 'server', base: 1 });
  });

  it('sends the oldest of each object and nothing of an object that waits for a person', () => {
    const refused = { ...edit('a', {}), refused: { slug: 'edit-conflict', message: '', problem: {} } };
    const log = [refused, edit('a', {}), create('b'), edit('b', {}, 0), remove('c')];
    expect(sendable(log).map((one) => one.object)).toEqual(['b', 'c']);
  });
});

describe('a list with operations upon it', () => {
  it('shows what is not stored yet, and not what is deleted', () => {
    const stored = withOperations([], [create('a')], 'kim').map((one) => ({ ...one, version: 1 }));
    const [first] = stored;
    const shown = withOperations(
      first ? [first, { ...first, id: 'z' }] : [],
      [create('b'), edit('a', { description: 'mine' }), remove('z')],
      'kim',
    );
    expect(shown.map((one) => [one.id, one.description, one.pending])).toEqual([
      ['a', 'mine', true],
      ['b', '', true],
    ]);
  });

  it('does not show what the server measured on a shape that has changed since', () => {
    const [first] = withOperations([], [create('a')], 'kim');
    const measured = { name: 'length', value: 5, unit: 'mm', source: 'server' } as const;
    const geometry = {
      type: 'length',
      space: 'pixel',
      points: [
        [0, 0],
        [9, 9],
      ],
    } as const;
    const [shown] = withOperations(
      first ? [{ ...first, measurements: [measured] }] : [],
      [edit('a', { geometry })],
      'kim',
    );
    expect(shown?.measurements).toEqual([]);
  });
});

describe('two people on one mask', () => {
  it('tells the slices that both changed to something else', () => {
    const slices = latestSlices(
      [],
      [0, 1, 2].map((slice) => ({ segmentNumber: 1, slice, bits: new Uint8Array([9]) })),
    );
    const theirs = [new Uint8Array([0]), new Uint8Array([4]), new Uint8Array([9])];
    const found = sliceConflicts(
      slices,
      () => new Uint8Array([0]),
      (_, slice) => theirs[slice] as Uint8Array,
    );
    expect(found.map((one) => one.both)).toEqual([false, true, false]);
  });
});
