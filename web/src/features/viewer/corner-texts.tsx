/** Texts in the corners of the image, the sides of the patient, and a scale. */
import { useTranslation } from 'react-i18next';
import { scaleOf } from '../../lib/affine';
import { sidesOf } from '../../lib/orientation';
import type { Placement } from './stack-view';
import classes from './stage.module.css';

const SCALES_MM = [1, 2, 5, 10, 20, 50, 100, 200, 500];
/** As long as it can be read at a glance, and no longer. */
const SCALE_MOST_PX = 150;

export function CornerTexts({ placement, lines }: { placement: Placement; lines: readonly string[] }) {
  const { t } = useTranslation();
  const sides = placement.orientation === null ? null : sidesOf(placement.orientation, placement.toScreen);
  const pxPerMm =
    placement.spacing === null
      ? null
      : scaleOf(placement.toScreen) / Math.sqrt(placement.spacing.columnMm * placement.spacing.rowMm);
  const scaleMm =
    pxPerMm === null ? undefined : SCALES_MM.filter((mm) => mm * pxPerMm <= SCALE_MOST_PX).at(-1);
  return (
    <div aria-hidden="true" data-testid="texts">
      <div className={classes.corner} style={{ top: 8, left: 10 }}>
        {lines.filter(Boolean).join('\n')}
      </div>
      {sides !== null && (
        <>
          <span className={classes.side} style={{ top: 6, left: '50%' }}>
            {sides.top}
          </span>
          <span className={classes.side} style={{ bottom: 36, left: '50%' }}>
            {sides.bottom}
          </span>
          <span className={classes.side} style={{ left: 10, top: '50%' }} data-testid="side-left">
            {sides.left}
          </span>
          <span className={classes.side} style={{ right: 10, top: '50%' }}>
            {sides.right}
          </span>
        </>
      )}
      {scaleMm !== undefined && pxPerMm !== null && (
        <div className={classes.scale}>
          {scaleMm >= 10 ? t('viewer.cm', { value: scaleMm / 10 }) : t('viewer.mm', { value: scaleMm })}
          <div className={classes.bar} style={{ width: scaleMm * pxPerMm }} />
        </div>
      )}
    </div>
  );
}
