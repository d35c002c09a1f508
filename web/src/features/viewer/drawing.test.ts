import { describe, expect, it } from 'vitest';
import type { Point } from '../../lib/affine';
import { closed, type Draft, hovered, pressed, preview, released } from './draw-gesture';
import { angleAt, areaOf, outlinesOf, roughMeasure, type ShapeType, within, withShortAxis } from './shapes';

const NEAR = 1;

/** Presses, moves and releases as the pointer makes them; the shape that came of it. */
function draw(type: ShapeType, ...events: ['press' | 'move' | 'release' | 'close', Point][]) {
  let draft: Draft | null = null;
  for (const [kind, at] of events) {
    if (kind === 'move') draft = draft && hovered(draft, at);
    else {
      const progress: ReturnType<typeof pressed> =
        kind === 'press'
          ? pressed(draft, type, at, NEAR)
          : kind === 'release'
            ? released(draft as Draft, at, NEAR)
            : closed(draft as Draft, NEAR);
      draft = progress.draft;
      if (progress.done !== null) return progress.done;
    }
  }
  return draft;
}

describe('drawing', () => {
  it('takes a length by dragging and by two clicks', () => {
    const dragged = draw('length', ['press', [1, 1]], ['move', [4, 4]], ['release', [9, 1]]);
    const clicked = draw(
      'length',
      ['press', [1, 1]],
      ['release', [1, 1]],
      ['move', [5, 1]],
      ['press', [9, 1]],
    );
    expect(dragged).toEqual({
      type: 'length',
      points: [
        [1, 1],
        [9, 1],
      ],
    });
    expect(clicked).toEqual(dragged);
  });

  it('takes an angle by dragging one arm and clicking the other', () => {
    const angle = draw('angle', ['press', [0, 9]], ['release', [0, 0]], ['press', [9, 0]]);
    expect(angle).toEqual({
      type: 'angle',
      points: [
        [0, 9],
        [0, 0],
        [9, 0],
      ],
    });
  });

  it('closes a polygon at its first corner, or where a double click ends it', () => {
    const corners: ['press', Point][] = [
      ['press', [0, 0]],
      ['press', [8, 0]],
      ['press', [8, 8]],
    ];
    const shape = {
      type: 'polygon',
      points: [
        [0, 0],
        [8, 0],
        [8, 8],
      ],
    };
    expect(draw('polygon', ...corners, ['press', [0.4, 0.4]])).toEqual(shape);
    expect(draw('polygon', ...corners, ['press', [8.1, 8]], ['close', [8.1, 8]])).toEqual(shape);
  });

  it('makes nothing of a line without length or a freehand dot', () => {
    expect(draw('length', ['press', [1, 1]], ['release', [1, 1]], ['press', [1, 1]])).toBeNull();
    expect(draw('freehand', ['press', [1, 1]], ['release', [1, 1]])).toBeNull();
  });

  it('follows the pointer for a freehand line and closes it', () => {
    const shape = draw(
      'freehand',
      ['press', [0, 0]],
      ['move', [5, 0]],
      ['move', [5.01, 0]],
      ['move', [5, 5]],
      ['release', [5, 5]],
    );
    expect(shape).toEqual({
      type: 'freehand',
      points: [
        [0, 0],
        [5, 0],
        [5, 5],
      ],
      closed: true,
    });
  });

  it('shows a rubber band to the pointer', () => {
    const draft: Draft = { type: 'length', points: [[0, 0]], hover: [3, 4], pressed: true };
    expect(roughMeasure(preview(draft), { columnMm: 2, rowMm: 2 })).toEqual({ kind: 'length', value: 10 });
  });
});

describe('shapes', () => {
  it('stands the short axis upright on the middle of the long one', () => {
    const [, , from, to] = withShortAxis([0, 4], [8, 4]) as [Point, Point, Point, Point];
    expect(from[0]).toBeCloseTo(4);
    expect(to[0]).toBeCloseTo(4);
    expect(Math.abs(from[1] - to[1])).toBeCloseTo(4);
  });

  it('measures angles, areas and ellipses', () => {
    expect(angleAt([0, 0], [1, 0], [0, 1])).toBeCloseTo(90);
    expect(
      areaOf([
        [0, 0],
        [4, 0],
        [4, 3],
        [0, 3],
      ]),
    ).toBeCloseTo(12);
    const [ellipse] = outlinesOf({
      type: 'ellipse',
      points: [
        [0, 0],
        [8, 4],
      ],
    });
    expect(areaOf(ellipse?.points ?? [])).toBeCloseTo(Math.PI * 8, 0);
  });

  it('measures in millimetres of pixels that are not square', () => {
    const shape = {
      type: 'rectangle',
      points: [
        [0, 0],
        [4, 2],
      ] as Point[],
    };
    expect(roughMeasure(shape, { columnMm: 0.5, rowMm: 3 })).toEqual({ kind: 'area', value: 12 });
    expect(roughMeasure(shape, null)).toEqual({ kind: 'area', value: 8 });
  });

  it('stays within the frame', () => {
    expect(
      within(
        [
          [-2, 5],
          [30, 11],
        ],
        20,
        10,
      ),
    ).toEqual([
      [0, 5],
      [20, 10],
    ]);
  });
});
