/** Each file with its state, of which only those in view are drawn. */
import { Button, Text } from '@mantine/core';
import { useVirtualizer } from '@tanstack/react-virtual';
import { type CSSProperties, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useFigures } from './figures';
import type { FileState } from './messages';
import { reasonText } from './reason-text';
import classes from './upload.module.css';
import type { Uploading } from './uploading';

const ROW_PX = 30;
const OVERSCAN = 12;

/** What one looks for together. */
const FILTERS = {
  all: null,
  open: ['found', 'reading', 'asked', 'waiting', 'sending', 'sent', 'verifying', 'ingesting'],
  stored: ['stored', 'used'],
  already: ['already'],
  refused: ['refused', 'lost'],
  skipped: ['skipped'],
} as const satisfies Record<string, readonly FileState[] | null>;
type Filter = keyof typeof FILTERS;

export function FileList({ upload }: { upload: Uploading }) {
  const { t } = useTranslation();
  const { size, count } = useFigures();
  const [filter, setFilter] = useState<Filter>('all');
  const scroller = useRef<HTMLDivElement>(null);
  const { rows, version } = upload;
  const states: readonly FileState[] | null = FILTERS[filter];
  // biome-ignore lint/correctness/useExhaustiveDependencies: rows change in place, and version tells of it
  const shown = useMemo(
    () =>
      states === null ? null : rows.flatMap((row, index) => (states.includes(row.state) ? [index] : [])),
    [rows, version, states],
  );
  const length = shown?.length ?? rows.length;
  const list = useVirtualizer({
    count: length,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW_PX,
    overscan: OVERSCAN,
  });
  const sum = (one: Filter) =>
    FILTERS[one]?.reduce((total, state) => total + upload.counts[state], 0) ?? rows.length;
  return (
    <div>
      {/* biome-ignore lint/a11y/useSemanticElements: a fieldset is for fields */}
      <div className={classes.filters} role="group" aria-label={t('upload.filter.label')}>
        {(Object.keys(FILTERS) as Filter[]).map((one) => (
          <Button
            key={one}
            size="compact-xs"
            variant={one === filter ? 'filled' : 'default'}
            aria-pressed={one === filter}
            disabled={sum(one) === 0 && one !== filter && one !== 'all'}
            data-testid={`filter-${one}`}
            onClick={() => setFilter(one)}
          >
            {t(`upload.filter.${one}`)} {count(sum(one))}
          </Button>
        ))}
      </div>
      <section
        ref={scroller}
        className={classes.files}
        style={{ '--lines': length } as CSSProperties}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: who scrolls with keys must reach it
        tabIndex={0}
        aria-label={t('upload.files')}
      >
        {length === 0 && (
          <Text size="sm" c="dimmed" ta="center" py="lg">
            {t(rows.length === 0 ? 'upload.noFilesYet' : 'upload.noneOfThese')}
          </Text>
        )}
        <ul className={classes.lines} style={{ height: list.getTotalSize() }}>
          {list.getVirtualItems().map((item) => {
            const row = rows[shown?.[item.index] ?? item.index];
            if (row === undefined) return null;
            const reason = row.reason ? reasonText(row.reason, t) : '';
            return (
              <li
                key={item.key}
                aria-setsize={length}
                aria-posinset={item.index + 1}
                className={classes.file}
                style={{ transform: `translateY(${item.start}px)` }}
                data-state={row.state}
                data-testid="file-row"
              >
                {/* Of a long way its end says most. */}
                <span className={classes.path} title={row.path}>
                  <bdi>{row.path}</bdi>
                </span>
                <span className={classes.reason} title={reason}>
                  {reason}
                </span>
                <span className={classes.size}>{size(row.size)}</span>
                <span className={classes.state}>{t(`upload.state.${row.state}`)}</span>
              </li>
            );
          })}
        </ul>
      </section>
    </div>
  );
}
