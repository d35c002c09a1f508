/** Shapes over the image: lines, what was measured on them, and handles to pull the chosen one. */
import { useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { ProjectLabel } from '../../api/annotations';
import { apply, type Point } from '../../lib/affine';
import { colorOf, labelName, measurementText, roughText } from './annotation-texts';
import type { ShownAnnotation } from './operations';
import type { Reading } from './reading';
import { moved, outlinesOf, roughMeasure, type Shape, textPlace, within, withPoint } from './shapes';
import type { Placement } from './stack-view';
import classes from './stage.module.css';

interface Props {
  reading: Reading;
  placement: Placement;
  annotations: readonly ShownAnnotation[];
  labels: readonly ProjectLabel[];
  selected: string | null;
  draft: Shape | null;
  /** Whether shapes are taken hold of; not while painting. */
  grasps: boolean;
  toPixel: (clientX: number, clientY: number) => Point | null;
}

/** More corners than this are a line drawn by hand, which is moved as a whole. */
const MOST_HANDLES = 60;
const LINE_PX = 15;

export function AnnotationLayer(props: Props) {
  const { t } = useTranslation();
  const { placement, draft } = props;
  const rough = draft && roughMeasure(draft, placement.spacing);
  return (
    <>
      {props.annotations.map((one) => (
        <ShownShape key={one.id} {...props} annotation={one} />
      ))}
      {draft !== null && draft.points.length > 0 && (
        <g style={{ color: '#ffd54f' }} data-testid="draft">
          <Lines shape={draft} placement={placement} />
          {rough !== null && (
            <Texts
              shape={draft}
              placement={placement}
              lines={[roughText(rough, placement.spacing !== null, t)]}
            />
          )}
        </g>
      )}
    </>
  );
}

function ShownShape(props: Props & { annotation: ShownAnnotation }) {
  const { t, i18n } = useTranslation();
  const { reading, placement, annotation, labels, toPixel } = props;
  const [dragged, setDragged] = useState<Point[] | null>(null);
  const grasp = useRef<{ from: Point; handle: number | null } | null>(null);
  const stored = pixelShape(annotation);
  if (stored === null) return null;
  const shape: Shape = dragged === null ? stored : { ...stored, points: dragged };
  const selected = props.selected === annotation.id;
  const rough =
    dragged === null && annotation.measurements.length > 0 ? null : roughMeasure(shape, placement.spacing);
  const name = labelName(annotation.label, labels, i18n.language);
  const lines = [
    [name, annotation.description].filter(Boolean).join(': '),
    ...(rough === null
      ? measurementText(annotation, i18n.language, t)
      : [roughText(rough, placement.spacing !== null, t)]),
  ].filter(Boolean);

  const handlers = (handle: number | null) => ({
    onPointerDown: (event: React.PointerEvent) => {
      const from = toPixel(event.clientX, event.clientY);
      if (event.button !== 0 || from === null) return;
      event.stopPropagation();
      event.currentTarget.setPointerCapture(event.pointerId);
      grasp.current = { from, handle };
      reading.state.update({ selected: annotation.id });
    },
    onPointerMove: (event: React.PointerEvent) => {
      const at = toPixel(event.clientX, event.clientY);
      if (grasp.current === null || at === null) return;
      event.stopPropagation();
      const { from } = grasp.current;
      const points =
        grasp.current.handle === null
          ? moved(stored.points, [at[0] - from[0], at[1] - from[1]])
          : withPoint(stored.points, grasp.current.handle, at);
      setDragged(within(points, placement.columns, placement.rows));
    },
    onPointerUp: (event: React.PointerEvent) => {
      if (grasp.current === null) return;
      event.stopPropagation();
      grasp.current = null;
      if (dragged !== null)
        reading.edit(annotation.id, {
          geometry: { ...annotation.geometry, space: 'pixel', points: dragged.map(([x, y]) => [x, y]) },
        });
      setDragged(null);
    },
  });

  return (
    <g
      className={classes.shape}
      style={{ color: colorOf(annotation.label, labels) }}
      data-testid="shape"
      data-selected={selected || undefined}
      data-pending={annotation.pending || undefined}
    >
      <Lines shape={shape} placement={placement} />
      {props.grasps && <Grasps shape={shape} placement={placement} handlers={handlers(null)} />}
      <Texts shape={shape} placement={placement} lines={lines} />
      {selected &&
        props.grasps &&
        shape.points.length <= MOST_HANDLES &&
        shape.points.map((point, index) => {
          const [x, y] = apply(placement.toScreen, point);
          return (
            // biome-ignore lint/suspicious/noArrayIndexKey: a corner is its place in the list
            <circle key={index} className={classes.handle} cx={x} cy={y} r={5} {...handlers(index)} />
          );
        })}
    </g>
  );
}

/** In pixels of its image; null where it has no shape there. */
function pixelShape(annotation: ShownAnnotation): Shape | null {
  const found = [annotation.geometry, annotation.mapped_geometry].find((one) => one?.space === 'pixel');
  if (!found) return null;
  return {
    type: found.type,
    points: (found.points ?? []).map((point): Point => [point[0] ?? 0, point[1] ?? 0]),
    ...(found.closed !== undefined && { closed: found.closed }),
  };
}

function pathsOf(shape: Shape, { toScreen }: Placement): string[] {
  return outlinesOf(shape).map(
    ({ points, closed }) =>
      `M${points
        .map((point) =>
          apply(toScreen, point)
            .map((n) => n.toFixed(1))
            .join(' '),
        )
        .join('L')}${closed ? 'Z' : ''}`,
  );
}

function Lines({ shape, placement }: { shape: Shape; placement: Placement }) {
  const [first, second] = shape.points;
  return (
    <>
      {pathsOf(shape, placement).map((d) => (
        <path key={d} className={classes.line} d={d} />
      ))}
      {shape.type === 'arrow' && first && second && (
        <ArrowHead tip={apply(placement.toScreen, first)} tail={apply(placement.toScreen, second)} />
      )}
      {(shape.type === 'probe' || shape.type === 'point') && first && (
        <Cross at={apply(placement.toScreen, first)} />
      )}
    </>
  );
}

function ArrowHead({ tip, tail }: { tip: Point; tail: Point }) {
  const turn = Math.atan2(tail[1] - tip[1], tail[0] - tip[0]);
  const side = (by: number) =>
    `${(tip[0] + 12 * Math.cos(turn + by)).toFixed(1)} ${(tip[1] + 12 * Math.sin(turn + by)).toFixed(1)}`;
  return <path className={classes.line} d={`M${side(0.45)}L${tip[0]} ${tip[1]}L${side(-0.45)}`} />;
}

function Cross({ at: [x, y] }: { at: Point }) {
  return (
    <path
      className={classes.line}
      d={`M${x - 7} ${y}H${x - 2}M${x + 2} ${y}H${x + 7}M${x} ${y - 7}V${y - 2}M${x} ${y + 2}V${y + 7}`}
    />
  );
}

function Grasps(props: { shape: Shape; placement: Placement; handlers: React.SVGProps<SVGElement> }) {
  const { shape, placement } = props;
  const handlers = props.handlers as object;
  const [first] = shape.points;
  if ((shape.type === 'probe' || shape.type === 'point') && first) {
    const [x, y] = apply(placement.toScreen, first);
    return <circle className={classes.dot} cx={x} cy={y} r={9} {...handlers} />;
  }
  return pathsOf(shape, placement).map((d) => <path key={d} className={classes.grasp} d={d} {...handlers} />);
}

function Texts({
  shape,
  placement,
  lines,
}: {
  shape: Shape;
  placement: Placement;
  lines: readonly string[];
}) {
  if (shape.points.length === 0) return null;
  const [x, y] = apply(placement.toScreen, textPlace(shape));
  return (
    <text className={classes.text} x={x + 9} y={y + 4}>
      {lines.map((line, index) => (
        <tspan key={line} x={x + 9} dy={index === 0 ? 0 : LINE_PX}>
          {line}
        </tspan>
      ))}
    </text>
  );
}
