/** Painting with a brush, an eraser, a threshold brush or a fill on the chosen segment. */
import type { Point } from '../../lib/affine';
import type { Tool } from './actions';
import type { MaskLayer } from './mask-canvas';
import { previewOf } from './mask-layers';
import type { MaskSession } from './mask-session';
import type { Reading } from './reading';
import type { Gesture } from './shape-gesture';
import type { StackView } from './stack-view';
import { aspectOf } from './stage';

export function paintGesture(given: {
  view: StackView;
  reading: Reading;
  layers: () => readonly MaskLayer[];
  tool: Tool;
  onNotice: (key: string) => void;
}): Gesture {
  const { view, reading, layers, tool, onNotice } = given;
  let session: MaskSession | null = null;
  let last: Point | null = null;
  let image = -1;

  const begin = (): boolean => {
    const { active } = reading.state.get();
    const open = active === null ? undefined : reading.sessions.get().get(active.segmentationId);
    if (active === null || open === undefined) return tell('segmentation.chooseSegment');
    // Nobody draws on what they do not see.
    if (previewOf(reading).get()?.segmentationId === open.id) previewOf(reading).set(null);
    const segment = open.state.get().segments.find((one) => one.segmentNumber === active.segmentNumber);
    if (segment?.locked) return tell('segmentation.isLocked');
    if (segment && !segment.visible) open.change(segment.segmentNumber, { visible: true });
    const layer = layers().find((one) => one.key === open.id);
    const slice = layer?.sliceOfImage[view.sliceIndex] ?? -1;
    if (slice < 0) return tell('segmentation.noSliceHere');
    if (!open.beginStroke(active.segmentNumber, slice)) return false;
    session = open;
    image = view.sliceIndex;
    return true;
  };
  const tell = (key: string): false => {
    onNotice(key);
    return false;
  };
  const drag = (from: Point, to: Point) => {
    const placement = view.placement();
    if (session === null || placement === null) return;
    session.drag(from, to, {
      radius: reading.state.get().brushRadius,
      aspect: aspectOf(placement),
      erases: tool.name === 'eraser',
      accepts: tool.name === 'threshold' ? acceptedByThreshold(view, reading) : null,
    });
  };

  const end = () => {
    const change = session?.endStroke() ?? null;
    if (session !== null && change !== null) reading.painted(session, [change]);
    session = null;
    last = null;
  };

  return {
    press: (at) => {
      if (!begin() || session === null) return;
      last = at;
      if (tool.name !== 'fill') return drag(at, at);
      const values = view.placement();
      const [column, row] = [Math.floor(at[0]), Math.floor(at[1])];
      const inside =
        values !== null && column >= 0 && row >= 0 && column < values.columns && row < values.rows;
      if (!inside || !session.fill(row * values.columns + column)) onNotice('segmentation.nothingEncloses');
    },
    move: (at) => {
      if (session === null || last === null || tool.name === 'fill') return;
      if (view.sliceIndex !== image) return end(); // the wheel was turned: the stroke belongs to the slice it began on
      drag(last, at);
      last = at;
    },
    release: end,
    cancel: end,
  };
}

/** Until somebody sets a range it is what the window shows between black and white. */
function acceptedByThreshold(view: StackView, reading: Reading): ((index: number) => boolean) | null {
  const values = view.values();
  const range = reading.state.get().threshold ?? view.windowRange();
  if (values === null || range === null) return null;
  return (index) => {
    const value = values.at(index);
    return value >= range.lower && value <= range.upper;
  };
}
