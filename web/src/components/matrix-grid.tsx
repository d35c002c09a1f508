/** A grid of any size: only the cells in sight exist, headers stay, arrow keys move from cell to cell. */
import { useVirtualizer } from '@tanstack/react-virtual';
import { type KeyboardEvent, type ReactNode, useEffect, useRef } from 'react';
import classes from './matrix-grid.module.css';

const ROW_PX = 36;
const COLUMN_PX = 148;
const HEAD_PX = 46;
const SIDE_PX = 240;
/** Rows before the last at which the next page is asked for. */
const AHEAD = 30;

export interface MatrixAxis {
  key: string;
  title: string;
  hint?: string;
}

interface Props {
  label: string;
  corner: string;
  rows: readonly MatrixAxis[];
  columns: readonly MatrixAxis[];
  /** One focusable control, which fills its cell. */
  cell: (row: number, column: number) => ReactNode;
  onNearEnd?: (() => void) | undefined;
}

export function MatrixGrid({ label, corner, rows, columns, cell, onNearEnd }: Props) {
  const scroll = useRef<HTMLDivElement>(null);
  const across = useVirtualizer({
    horizontal: true,
    count: columns.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => COLUMN_PX,
    overscan: 2,
    scrollPaddingStart: SIDE_PX,
  });
  const down = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroll.current,
    estimateSize: () => ROW_PX,
    overscan: 6,
    scrollPaddingStart: HEAD_PX,
  });
  const shownRows = down.getVirtualItems();
  const last = shownRows.at(-1)?.index ?? 0;
  useEffect(() => {
    if (last >= rows.length - AHEAD) onNearEnd?.();
  }, [last, rows.length, onNearEnd]);

  const move = (event: KeyboardEvent<HTMLDivElement>) => {
    const at = (event.target as HTMLElement).closest<HTMLElement>('[data-row]');
    const step = STEPS[event.key];
    if (at === null || step === undefined || event.altKey) return;
    event.preventDefault();
    const row = within(Number(at.dataset.row) + step[0], rows.length);
    const column = within(Number(at.dataset.column) + step[1], columns.length);
    down.scrollToIndex(row);
    across.scrollToIndex(column);
    // The cell may come into being only by the scrolling.
    requestAnimationFrame(() =>
      requestAnimationFrame(() =>
        scroll.current
          ?.querySelector<HTMLElement>(`[data-row="${row}"][data-column="${column}"]`)
          ?.querySelector<HTMLElement>('select, button, input')
          ?.focus(),
      ),
    );
  };

  return (
    // biome-ignore lint/a11y/useSemanticElements: a table cannot leave out the cells that are not in sight
    <div
      ref={scroll}
      className={classes.scroll}
      role="grid"
      tabIndex={-1}
      aria-label={label}
      aria-rowcount={rows.length + 1}
      aria-colcount={columns.length + 1}
      data-testid="matrix"
      onKeyDown={move}
    >
      <div
        role="presentation"
        style={{
          position: 'relative',
          width: SIDE_PX + across.getTotalSize(),
          height: HEAD_PX + down.getTotalSize(),
        }}
      >
        {/* biome-ignore lint/a11y/useSemanticElements: as above */}
        {/* biome-ignore lint/a11y/useFocusableInteractive: its cells take the focus */}
        <div className={classes.head} role="row" aria-rowindex={1} style={{ height: HEAD_PX }}>
          {/* biome-ignore lint/a11y/useSemanticElements: as above */}
          {/* biome-ignore lint/a11y/useFocusableInteractive: a header is no control */}
          <div className={classes.corner} role="columnheader" style={{ width: SIDE_PX, height: HEAD_PX }}>
            {corner}
          </div>
          {across.getVirtualItems().map(({ index, start, size }) => (
            // biome-ignore lint/a11y/useSemanticElements: as above
            // biome-ignore lint/a11y/useFocusableInteractive: a header is no control
            <div
              key={columns[index]?.key}
              className={classes.column}
              role="columnheader"
              aria-colindex={index + 2}
              title={columns[index]?.title}
              style={{ left: SIDE_PX + start, width: size }}
            >
              <span>{columns[index]?.title}</span>
              <small>{columns[index]?.hint}</small>
            </div>
          ))}
        </div>
        {shownRows.map(({ index: row, start }) => (
          // biome-ignore lint/a11y/useSemanticElements: as above
          // biome-ignore lint/a11y/useFocusableInteractive: its cells take the focus
          <div
            key={rows[row]?.key}
            className={classes.row}
            role="row"
            aria-rowindex={row + 2}
            style={{ top: HEAD_PX + start, height: ROW_PX }}
          >
            {/* biome-ignore lint/a11y/useSemanticElements: as above */}
            {/* biome-ignore lint/a11y/useFocusableInteractive: a header is no control */}
            <div
              className={classes.side}
              role="rowheader"
              style={{ width: SIDE_PX }}
              title={rows[row]?.title}
            >
              <span>{rows[row]?.title}</span>
              <small>{rows[row]?.hint}</small>
            </div>
            {across.getVirtualItems().map(({ index: column, start: left, size }) => (
              // biome-ignore lint/a11y/useSemanticElements: as above
              // biome-ignore lint/a11y/useFocusableInteractive: its control takes the focus
              <div
                key={columns[column]?.key}
                className={classes.cell}
                role="gridcell"
                aria-colindex={column + 2}
                data-row={row}
                data-column={column}
                style={{ left: SIDE_PX + left, width: size }}
              >
                {cell(row, column)}
              </div>
            ))}
          </div>
        ))}
      </div>
    </div>
  );
}

const STEPS: Record<string, readonly [number, number]> = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
};
const within = (index: number, count: number) => Math.min(Math.max(index, 0), count - 1);
