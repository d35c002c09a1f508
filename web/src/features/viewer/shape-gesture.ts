/** Drawing with a measurement tool: the gesture, and the annotation that comes of it. */
import { type Point, scaleOf } from '../../lib/affine';
import type { Tool } from './actions';
import { closed, type Draft, hovered, type Progress, pressed, released } from './draw-gesture';
import type { Reading } from './reading';
import type { ImagePlace } from './series-images';
import { middleOf, type Shape, type ShapeType, within } from './shapes';
import type { StackView } from './stack-view';

export interface Gesture {
  press: (at: Point) => void;
  move: (at: Point) => void;
  release: (at: Point) => void;
  /** A double click. */
  close?: () => void;
  /** The key: ends what is being drawn, or puts a shape into the middle of the image, to be moved by keys. */
  enter?: () => void;
  /** Gives up a shape; a stroke ends where it is. */
  cancel: () => void;
}

/** Within so many CSS pixels two places are one. */
export const NEAR_PX = 8;
const REGIONS = new Set(['rectangle', 'ellipse', 'polygon', 'freehand']);

export function shapeGesture(given: {
  view: StackView;
  reading: Reading;
  place: ImagePlace;
  seriesUid: string;
  projectId: string | null;
  tool: Tool;
  onNotice: (key: string) => void;
  setDraft: (draft: Draft | null) => void;
}): Gesture {
  const { view, reading, place, seriesUid, projectId, tool, onNotice, setDraft } = given;
  let draft: Draft | null = null;
  const near = () => NEAR_PX / scaleOf(view.placement()?.toScreen ?? { a: 1, b: 0, c: 0, d: 1, e: 0, f: 0 });
  const take = (progress: Progress) => {
    draft = progress.draft;
    setDraft(draft);
    if (progress.done !== null) keep(progress.done);
  };
  const keep = (shape: Shape) => {
    const placement = view.placement();
    if (projectId === null) return onNotice('annotation.noProject');
    if (placement === null) return;
    const points = within(shape.points, placement.columns, placement.rows).map(([x, y]) => [x, y]);
    reading.create({
      project_id: projectId,
      study_instance_uid: reading.studyUid,
      series_instance_uid: seriesUid,
      sop_instance_uid: place.sopInstanceUid,
      frame_number: place.frameNumber,
      kind: REGIONS.has(shape.type) ? 'region' : shape.type === 'arrow' ? 'arrow' : 'measurement',
      geometry: {
        type: shape.type as ShapeType,
        space: 'pixel',
        points,
        ...(shape.closed !== undefined && { closed: shape.closed }),
      },
      label: reading.state.get().label ?? null,
      description: '',
      tool: tool.name,
      model: '',
      why: '',
    });
  };
  return {
    press: (at) => take(pressed(draft, tool.name as ShapeType, at, near())),
    move: (at) => {
      if (draft === null) return;
      draft = hovered(draft, at);
      setDraft(draft);
    },
    release: (at) => draft && take(released(draft, at, near())),
    close: () => draft && take(closed(draft, near())),
    enter: () => {
      if (draft !== null) return take(closed(draft, near()));
      const placement = view.placement();
      if (placement === null) return;
      keep({ type: tool.name, points: middleOf(tool.name as ShapeType, placement.columns, placement.rows) });
    },
    cancel: () => {
      draft = null;
      setDraft(null);
    },
  };
}
