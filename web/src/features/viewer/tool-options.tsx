/** What the chosen tool can be told: the size of the brush, the range of the threshold. */
import { NumberInput, Slider } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import { useStore } from '../../lib/store';
import type { Reading } from './reading';
import classes from './stack-panel.module.css';
import type { ViewState } from './stack-view';

export function ToolOptions({ reading, window }: { reading: Reading; window: ViewState['window'] }) {
  const { t } = useTranslation();
  const store = reading.state;
  const state = useStore(store);
  if (state.tool !== 'brush' && state.tool !== 'eraser' && state.tool !== 'threshold') return null;
  const shown = window ?? { center: 0, width: 0 };
  const range = state.threshold ?? {
    lower: Math.round(shown.center - shown.width / 2),
    upper: Math.round(shown.center + shown.width / 2),
  };
  const bound = (side: 'lower' | 'upper') => (
    <NumberInput
      size="xs"
      className={classes.number}
      aria-label={t(`viewer.threshold.${side}`)}
      data-testid={`threshold-${side}`}
      hideControls
      value={range[side]}
      onChange={(value) =>
        typeof value === 'number' && store.update({ threshold: { ...range, [side]: value } })
      }
    />
  );
  return (
    <div className={classes.options}>
      <span>{t('viewer.brushSize')}</span>
      <Slider
        w={90}
        size="xs"
        min={0.5}
        max={40}
        step={0.5}
        label={null}
        thumbLabel={t('viewer.brushSize')}
        value={state.brushRadius}
        onChange={(brushRadius) => store.update({ brushRadius })}
      />
      {state.tool === 'threshold' && (
        <>
          {bound('lower')}–{bound('upper')}
        </>
      )}
    </div>
  );
}
