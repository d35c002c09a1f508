/** The image with what lies over it: masks, shapes, texts; and what the pointer does with the chosen tool. */
import { type ReactNode, useEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { ProjectLabel } from '../../api/annotations';
import { type Point, scaleOf } from '../../lib/affine';
import { isTyping } from '../../lib/shortcut';
import { useStore } from '../../lib/store';
import { resizeBrush, toolOf } from './actions';
import { AnnotationLayer } from './annotation-layer';
import { CornerTexts } from './corner-texts';
import { type Draft, preview } from './draw-gesture';
import { drawMasks, type MaskLayer } from './mask-canvas';
import type { ShownAnnotation } from './operations';
import { paintGesture } from './paint-gesture';
import type { Reading } from './reading';
import type { SeriesImages } from './series-images';
import { shapeGesture } from './shape-gesture';
import type { Placement, StackView } from './stack-view';
import classes from './stage.module.css';

interface Props {
  view: StackView | null;
  images: SeriesImages | null;
  reading: Reading;
  layers: readonly MaskLayer[];
  annotations: readonly ShownAnnotation[];
  labels: readonly ProjectLabel[];
  seriesUid: string;
  projectId: string | null;
  texts: readonly string[];
  onNotice: (key: string) => void;
  /** The element that the engine draws into. */
  children: ReactNode;
}

export function Stage(props: Props) {
  const { t } = useTranslation();
  const { view, images, reading, layers, seriesUid, projectId, onNotice } = props;
  const state = useStore(reading.state);
  const surface = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const [placement, setPlacement] = useState<Placement | null>(null);
  const [draft, setDraft] = useState<Draft | null>(null);
  const [pointer, setPointer] = useState<Point | null>(null);
  const tool = toolOf(state.tool);

  useEffect(() => {
    if (view === null) return;
    const follow = () => setPlacement(view.placement());
    follow();
    return view.onDrawn(follow);
  }, [view]);

  useEffect(() => {
    if (canvas.current !== null) drawMasks(canvas.current, placement, layers);
  }, [placement, layers]);

  useEffect(() => {
    view?.setTool(tool.group === 'view' ? (tool.name as Parameters<StackView['setTool']>[0]) : null);
    setDraft(null);
  }, [view, tool]);

  const place = images?.places[placement?.sliceIndex ?? -1] ?? null;
  // A stroke changes the layers while it goes on: it asks for them, so that it is not begun anew.
  const latestLayers = useRef(layers);
  latestLayers.current = layers;
  const gesture = useMemo(() => {
    if (view === null) return null;
    if (tool.group === 'paint')
      return paintGesture({ view, reading, layers: () => latestLayers.current, tool, onNotice });
    if (tool.group === 'measure' && place !== null)
      return shapeGesture({ view, reading, place, seriesUid, projectId, tool, onNotice, setDraft });
    return null;
  }, [view, reading, tool, place, seriesUid, projectId, onNotice]);

  // A tool that is put down ends what it was drawing: a stroke is kept, half a shape is not.
  useEffect(() => {
    if (gesture === null) return;
    return () => gesture.cancel();
  }, [gesture]);

  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      if (event.defaultPrevented || isTyping(event.target, event.key)) return;
      if (event.key === 'Escape') {
        gesture?.cancel();
        reading.state.update({ selected: null });
      } else if (event.key === 'Enter') gesture?.enter?.();
    };
    window.addEventListener('keydown', press);
    return () => window.removeEventListener('keydown', press);
  }, [reading, gesture]);

  // React listens to wheels passively; this one must keep the engine from scrolling.
  useEffect(() => {
    const element = surface.current;
    if (element === null || tool.group !== 'paint') return;
    const wheel = (event: WheelEvent) => {
      if (!event.shiftKey && !event.ctrlKey) return;
      event.preventDefault();
      event.stopPropagation();
      resizeBrush(reading, (event.deltaY || event.deltaX) < 0 ? 1.15 : 1 / 1.15);
    };
    element.addEventListener('wheel', wheel, { capture: true, passive: false });
    return () => element.removeEventListener('wheel', wheel, { capture: true });
  }, [reading, tool.group]);

  const here = useMemo(
    () =>
      props.annotations.filter(
        (one) =>
          place !== null &&
          one.sop_instance_uid === place.sopInstanceUid &&
          (one.frame_number ?? 1) === (place.frameNumber ?? 1),
      ),
    [props.annotations, place],
  );
  const at = (event: React.PointerEvent) => view?.pixelAt(event.clientX, event.clientY) ?? null;
  const draws = gesture !== null;

  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: drawing is by pointer; every tool and command has a key as well
    <div
      ref={surface}
      className={classes.over}
      data-draws={draws || undefined}
      data-paints={tool.group === 'paint' || undefined}
      data-testid="stage"
      onPointerDown={(event) => {
        const point = at(event);
        if (event.button !== 0 || !draws || point === null) return;
        event.preventDefault();
        (document.activeElement as HTMLElement | null)?.blur?.();
        event.currentTarget.setPointerCapture(event.pointerId);
        gesture.press(point);
      }}
      onPointerMove={(event) => {
        const point = at(event);
        setPointer(tool.group === 'paint' ? point : null);
        if (point !== null) gesture?.move(point);
      }}
      onPointerUp={(event) => {
        const point = at(event);
        if (event.button === 0 && point !== null) gesture?.release(point);
      }}
      onPointerCancel={() => gesture?.cancel()}
      onPointerLeave={() => setPointer(null)}
      onDoubleClick={() => gesture?.close?.()}
    >
      {props.children}
      <canvas ref={canvas} className={classes.masks} />
      {placement !== null && (
        <svg className={classes.shapes} role="img" aria-label={t('annotation.onImage')}>
          {state.showsShapes && (
            <AnnotationLayer
              reading={reading}
              placement={placement}
              annotations={here}
              labels={props.labels}
              selected={state.selected}
              draft={draft && preview(draft)}
              grasps={!draws || tool.group === 'measure'}
              toPixel={(x, y) => view?.pixelAt(x, y) ?? null}
            />
          )}
          {tool.group === 'paint' && tool.name !== 'fill' && pointer !== null && (
            <BrushTip placement={placement} at={pointer} radius={state.brushRadius} />
          )}
        </svg>
      )}
      {placement !== null && state.showsTexts && <CornerTexts placement={placement} lines={props.texts} />}
    </div>
  );
}

function BrushTip({ placement, at, radius }: { placement: Placement; at: Point; radius: number }) {
  const { a, b, c, d, e, f } = placement.toScreen;
  const aspect = aspectOf(placement);
  return (
    <ellipse
      className={classes.tip}
      transform={`matrix(${a} ${b} ${c} ${d} ${e} ${f})`}
      cx={at[0]}
      cy={at[1]}
      rx={radius}
      ry={radius / aspect}
      strokeWidth={1.2 / scaleOf(placement.toScreen)}
    />
  );
}

/** Height of a pixel over its width. */
export function aspectOf({ spacing }: Placement): number {
  return spacing === null ? 1 : spacing.rowMm / spacing.columnMm;
}
