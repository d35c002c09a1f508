/** The image itself with its toolbar, slice slider and status line. */
import { ActionIcon, Loader, Menu, Slider, Tooltip } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { RESET, TOOL_ACTIONS, VIEW_COMMANDS, windowPresets } from './actions';
import type { SeriesImages } from './series-images';
import classes from './stack-panel.module.css';
import { type PixelProbe, StackView, type ToolName, type ViewState } from './stack-view';

interface Props {
  images: SeriesImages | null;
  seriesUid: string;
  error: Error | null;
  onView: (view: StackView | null) => void;
  onShown: (seriesUid: string) => void;
}

export function StackPanel({ images, seriesUid, error, onView, onShown }: Props) {
  const { t } = useTranslation();
  const element = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<StackView | null>(null);
  const [state, setState] = useState<ViewState | null>(null);
  const [tool, setTool] = useState<ToolName>('window');
  const [probe, setProbe] = useState<PixelProbe | null>(null);
  const [failed, setFailed] = useState(false);
  const [loading, setLoading] = useState(true);

  useEffect(() => {
    if (element.current === null) return;
    const made = new StackView(element.current, setState, () => setFailed(true));
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

  const choose = (name: ToolName) => {
    setTool(name);
    view?.setTool(name);
  };
  useHotkeys([
    ...TOOL_ACTIONS.map((action): [string, () => void] => [action.shortcut, () => choose(action.name)]),
    ...VIEW_COMMANDS.flatMap((command) =>
      command.shortcuts.map((key): [string, () => void] => [key, () => view && command.run(view)]),
    ),
  ]);
  const last = (state?.sliceCount ?? 1) - 1;

  return (
    <section className={classes.panel}>
      <div className={classes.toolbar} role="toolbar">
        {TOOL_ACTIONS.map(({ name, label, icon: Icon }) => (
          <Tooltip key={name} label={t(label)}>
            <ActionIcon
              variant={tool === name ? 'filled' : 'subtle'}
              color={tool === name ? 'teal' : 'gray'}
              aria-pressed={tool === name}
              aria-label={t(label)}
              data-testid={`tool-${name}`}
              onClick={() => choose(name)}
            >
              <Icon />
            </ActionIcon>
          </Tooltip>
        ))}
        <Tooltip label={t(RESET.label)}>
          <ActionIcon
            variant="subtle"
            color="gray"
            aria-label={t(RESET.label)}
            data-testid="reset"
            onClick={() => view && RESET.run(view)}
          >
            <RESET.icon />
          </ActionIcon>
        </Tooltip>
        <Menu position="bottom-start">
          <Menu.Target>
            <button type="button" className={classes.presets} data-testid="presets">
              {t('viewer.presets')}
            </button>
          </Menu.Target>
          <Menu.Dropdown>
            {windowPresets(images?.modality ?? '').map((preset) => (
              <Menu.Item key={preset.name} onClick={() => view?.setWindow(preset.window)}>
                {t(`viewer.preset.${preset.name}`)}
              </Menu.Item>
            ))}
          </Menu.Dropdown>
        </Menu>
      </div>
      <div className={classes.stage}>
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
        {state?.window && (
          <span className={classes.figure} data-testid="window">
            {t('viewer.window', { width: figure(state.window.width), center: figure(state.window.center) })}
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
