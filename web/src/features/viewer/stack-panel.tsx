/** The image itself with its toolbar, slice slider and status line. */
import { Loader, Slider } from '@mantine/core';
import { type ComponentProps, useCallback, useEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useStore } from '../../lib/store';
import type { Context } from './actions';
import type { SeriesImages } from './series-images';
import classes from './stack-panel.module.css';
import { type PixelProbe, StackView, type ViewState } from './stack-view';
import { Stage } from './stage';
import { ToolOptions } from './tool-options';
import { Toolbar } from './toolbar';
import { useShortcuts } from './use-shortcuts';

type StageProps = ComponentProps<typeof Stage>;

interface Props extends Omit<StageProps, 'view' | 'children' | 'onNotice' | 'texts'> {
  images: SeriesImages | null;
  error: Error | null;
  /** Patient and series, for the corner of the image. */
  texts: readonly string[];
  onView: (view: StackView | null) => void;
  onShown: (seriesUid: string) => void;
  onHelp: () => void;
}

const CINE_PER_S = 12;
const NOTICE_MS = 4000;

export function StackPanel({ error, onView, onShown, onHelp, texts, ...stage }: Props) {
  const { t } = useTranslation();
  const { images, seriesUid, reading } = stage;
  const element = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<StackView | null>(null);
  const [state, setState] = useState<ViewState | null>(null);
  const [probe, setProbe] = useState<PixelProbe | null>(null);
  const [failed, setFailed] = useState(false);
  const [loading, setLoading] = useState(true);
  const [notice, setNotice] = useState<string | null>(null);
  const { playing } = useStore(reading.state);

  useEffect(() => {
    if (element.current === null) return;
    const made = new StackView(element.current, setState, setFailed);
    setView(made);
    onView(made);
    return () => {
      onView(null);
      setView(null);
      made.destroy();
    };
  }, [onView]);

  useEffect(() => {
    if (view === null || images === null) return;
    let current = true;
    setLoading(true);
    setFailed(false);
    view.show(images, Math.floor(images.imageIds.length / 2)).then(
      () => {
        if (!current) return;
        setLoading(false);
        onShown(seriesUid);
      },
      () => {
        if (current) setFailed(true);
      },
    );
    return () => {
      current = false;
    };
  }, [view, images, seriesUid, onShown]);

  const count = images?.imageIds.length ?? 0;
  useEffect(() => {
    if (!playing || view === null || count < 2) return;
    const timer = setInterval(() => void view.goTo((view.sliceIndex + 1) % count), 1000 / CINE_PER_S);
    return () => clearInterval(timer);
  }, [playing, view, count]);

  useEffect(() => {
    if (notice === null) return;
    const timer = setTimeout(() => setNotice(null), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [notice]);

  const context = useMemo<Context | null>(
    () => (view === null ? null : { view, reading, showHelp: onHelp }),
    [view, reading, onHelp],
  );
  useShortcuts(context, images?.modality ?? '');
  const tell = useCallback((key: string) => setNotice(key), []);
  const last = (state?.sliceCount ?? 1) - 1;
  const window = state?.window ?? null;

  return (
    <section className={classes.panel} aria-label={t('viewer.image')}>
      <Toolbar context={context} modality={images?.modality ?? ''} inverted={state?.inverted ?? false} />
      <div className={classes.stage}>
        <Stage
          {...stage}
          view={loading || failed ? null : view}
          texts={[...texts, ...(images === null ? [] : [`${(state?.sliceIndex ?? 0) + 1} / ${count}`])]}
          onNotice={tell}
        >
          <div
            ref={element}
            className={classes.viewport}
            role="img"
            aria-label={t('viewer.image')}
            data-testid="viewport"
            data-shown={!loading}
            onContextMenu={(event) => event.preventDefault()}
            onMouseMove={(event) => setProbe(view?.probe(event.clientX, event.clientY) ?? null)}
            onMouseLeave={() => setProbe(null)}
          />
        </Stage>
        {loading && !failed && error === null && (
          <div className={classes.notice}>
            <Loader size="sm" aria-label={t('viewer.loadingImages')} />
          </div>
        )}
        {(failed || error !== null) && (
          <div className={classes.notice} role="alert" data-testid="image-error">
            {error?.message ?? t('viewer.imageFailed')}
          </div>
        )}
        <ToolOptions reading={reading} window={window} />
        <div className={classes.toast} role="status" data-testid="notice">
          {notice !== null && <span>{t(notice)}</span>}
        </div>
      </div>
      <div className={classes.status} data-testid="status">
        <span className={classes.figure} data-testid="slice">
          {(state?.sliceIndex ?? 0) + 1} / {last + 1}
        </span>
        <Slider
          className={classes.slider}
          size="xs"
          min={0}
          max={Math.max(last, 1)}
          disabled={last === 0}
          label={null}
          thumbLabel={t('viewer.slice')}
          value={state?.sliceIndex ?? 0}
          onChange={(index) => void view?.goTo(index)}
        />
        {window && (
          <span className={classes.figure} data-testid="window">
            {t('viewer.window', { width: figure(window.width), center: figure(window.center) })}
          </span>
        )}
        <span className={classes.probe}>
          {probe && `(${probe.column}, ${probe.row}) ${t('viewer.value', { value: figure(probe.value) })}`}
        </span>
      </div>
    </section>
  );
}

function figure(value: number): string {
  return Number.isInteger(value) || Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
