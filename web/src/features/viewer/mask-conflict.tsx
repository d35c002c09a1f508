/** Two people drew on the same version: both pictures, and mine, theirs, or slice by slice. */
import { Button, Group, Loader, SegmentedControl, Stack, Text, UnstyledButton } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { fetchMasks, getSegmentation } from '../../api/masks';
import { FailureNotice } from '../../components/failure-notice';
import classes from './conflict-dialog.module.css';
import { pictureOfSlice, rgbOf } from './mask-picture';
import { MaskVolume, sameBits } from './mask-volume';
import { latestSlices, type Operation, type PaintedSlice, sliceConflicts } from './operations';
import type { Reading } from './reading';

type Saving = Operation & { kind: 'masks.save' };
type Choice = 'mine' | 'theirs';

interface Props {
  reading: Reading;
  operation: Saving;
  onClose: () => void;
}

/** Both sides, read for the decision. */
async function bothSides(operation: Saving, mine: readonly PaintedSlice[]) {
  const theirs = await getSegmentation(operation.object);
  const [base, now] = await Promise.all([
    fetchMasks(operation.object, operation.base),
    fetchMasks(operation.object, theirs.version),
  ]);
  const before = new MaskVolume(base);
  const other = new MaskVolume(now);
  const own = new MaskVolume(base);
  for (const one of mine) own.put(one.segmentNumber, one.slice, one.bits);
  const slices = sliceConflicts(mine, before.slice.bind(before), other.slice.bind(other));
  return { theirs, own, other, slices };
}

export function MaskConflict({ reading, operation, onClose }: Props) {
  const { t } = useTranslation();
  const cache = useQueryClient();
  const pending = reading.pendingMasks(operation.object).filter((one) => one.at >= operation.at);
  const mine = pending.reduce<PaintedSlice[]>((all, one) => latestSlices(all, one.slices), []);
  const describe = pending.reduce<Saving['describe']>((last, one) => one.describe ?? last, null);
  const [choices, setChoices] = useState<Record<string, Choice>>({});
  const [shown, setShown] = useState(0);
  const sides = useQuery({
    queryKey: ['mask-conflict', operation.id],
    queryFn: () => bothSides(operation, mine),
    gcTime: 0,
  });
  if (sides.error !== null)
    return <FailureNotice title={t('segmentation.masksFailed')} error={sides.error} />;
  if (sides.data === undefined) return <Loader size="sm" />;
  const { theirs, own, other, slices } = sides.data;
  const problem = operation.refused?.problem as { changed_by?: string };

  const decide = async (kept: PaintedSlice[] | null) => {
    const work =
      kept === null || (kept.length === 0 && describe === null)
        ? null
        : ({
            kind: 'masks.save',
            base: theirs.version,
            shapeKji: operation.shapeKji,
            slices: kept,
            describe,
          } as const);
    reading.history.clear();
    reading.outbox.resolve(operation, work);
    reading.putSegmentation(theirs);
    await reading.reopenMasks(theirs);
    if (kept === null) {
      // What was given up can still be had: one step back puts it upon theirs.
      const put = (volume: MaskVolume) => {
        const session = reading.sessions.get().get(operation.object);
        const back = mine.map((one) => ({ ...one, bits: volume.slice(one.segmentNumber, one.slice) }));
        for (const one of back) session?.put(one.segmentNumber, one.slice, one.bits);
        if (session) reading.saveMasks(session, back, null);
      };
      reading.history.push({ undo: () => put(own), redo: () => put(other) });
    }
    void cache.invalidateQueries({ queryKey: ['segmentations'] });
    onClose();
  };
  const everyDifference = (): PaintedSlice[] =>
    theirs.segments.flatMap(({ segment_number: segmentNumber }) =>
      Array.from({ length: operation.shapeKji[0] }, (_, slice) => ({
        segmentNumber,
        slice,
        bits: own.slice(segmentNumber, slice),
      })).filter((one) => !sameBits(one.bits, other.slice(segmentNumber, one.slice))),
    );
  const chosen = () =>
    mine.filter((one) => (choices[`${one.segmentNumber}:${one.slice}`] ?? 'mine') === 'mine');
  const label = (segmentNumber: number) =>
    theirs.segments.find((one) => one.segment_number === segmentNumber)?.label ?? String(segmentNumber);
  const looked = slices[Math.min(shown, slices.length - 1)];
  const painted = theirs.segments.map((one) => ({
    segmentNumber: one.segment_number,
    rgb: rgbOf(one.color),
    voxels: one.statistics.voxels,
    visible: true,
  }));

  return (
    <Stack gap="sm">
      <Text size="sm">{t('conflict.by', { name: problem.changed_by ?? '?' })}</Text>
      {looked !== undefined && (
        <div className={classes.sides}>
          {(
            [
              ['mine', own],
              ['theirs', other],
            ] as const
          ).map(([name, volume]) => (
            <section key={name} className={classes.side}>
              <h3 className={classes.title}>
                {t(`conflict.${name}`)} · {t('annotation.slice', { slice: looked.slice + 1 })}
              </h3>
              <SlicePicture
                label={t(`conflict.${name}`)}
                pixels={pictureOfSlice(volume, looked.slice, painted, 0.8)}
                columns={operation.shapeKji[2]}
                rows={operation.shapeKji[1]}
              />
            </section>
          ))}
        </div>
      )}
      <ul className={classes.slices}>
        {slices.map((one, index) => {
          const key = `${one.segmentNumber}:${one.slice}`;
          return (
            <li key={key} data-testid="conflict-slice" data-both={one.both}>
              <span>
                <UnstyledButton onClick={() => setShown(index)}>
                  {label(one.segmentNumber)} · {t('annotation.slice', { slice: one.slice + 1 })}
                </UnstyledButton>{' '}
                <Text component="span" size="xs" c={one.both ? 'red' : 'dimmed'}>
                  {t(one.both ? 'conflict.both' : 'conflict.onlyMine')}
                </Text>
              </span>
              <SegmentedControl
                size="xs"
                aria-label={t('conflict.sliceChoice')}
                data={[
                  { value: 'mine', label: t('conflict.mine') },
                  { value: 'theirs', label: t('conflict.theirs') },
                ]}
                value={choices[key] ?? 'mine'}
                onChange={(value) => setChoices({ ...choices, [key]: value as Choice })}
              />
            </li>
          );
        })}
      </ul>
      <Text size="xs" c="dimmed">
        {t('conflict.hint')}
      </Text>
      <Group justify="flex-end">
        <Button variant="default" data-testid="take-theirs" onClick={() => void decide(null)}>
          {t('conflict.takeTheirs')}
        </Button>
        <Button variant="default" data-testid="keep-mine" onClick={() => void decide(everyDifference())}>
          {t('conflict.keepMine')}
        </Button>
        <Button data-testid="merge" onClick={() => void decide(chosen())}>
          {t('conflict.mergeSlices')}
        </Button>
      </Group>
    </Stack>
  );
}

function SlicePicture(props: {
  label: string;
  pixels: Uint8ClampedArray<ArrayBuffer> | null;
  columns: number;
  rows: number;
}) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { pixels, columns, rows } = props;
  useEffect(() => {
    const context = canvas.current?.getContext('2d');
    if (!context) return;
    context.clearRect(0, 0, columns, rows);
    if (pixels !== null) context.putImageData(new ImageData(pixels, columns, rows), 0, 0);
  }, [pixels, columns, rows]);
  return (
    <canvas
      ref={canvas}
      className={classes.picture}
      width={columns}
      height={rows}
      role="img"
      aria-label={props.label}
    />
  );
}
