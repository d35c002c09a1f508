/** What of the open masks is drawn over the stack, in step with their changes. */
import { useEffect, useMemo, useState } from 'react';
import { matchSlices, slicesOfImages } from '../../lib/slice-order';
import { Store, useStore } from '../../lib/store';
import type { MaskLayer } from './mask-canvas';
import type { PaintedSegment } from './mask-picture';
import type { MaskVolume } from './mask-volume';
import type { Reading } from './reading';
import type { SeriesImages } from './series-images';

/** Shown in the place of a segmentation: an earlier version, or how two differ. */
export interface Preview {
  segmentationId: string;
  title: string;
  volume: MaskVolume;
  segments: readonly PaintedSegment[];
  legend: readonly { label: string; color: string }[];
}

const previews = new WeakMap<Reading, Store<Preview | null>>();

export function previewOf(reading: Reading): Store<Preview | null> {
  const known = previews.get(reading) ?? new Store<Preview | null>(null);
  previews.set(reading, known);
  return known;
}

export function imagesOfSlices(volume: MaskVolume, images: SeriesImages): number[] {
  return matchSlices(images.positions, images.normal, volume.affineLps, volume.shapeKji[0]);
}

export function useMaskLayers(reading: Reading, images: SeriesImages | null, seriesUid: string): MaskLayer[] {
  const sessions = useStore(reading.sessions);
  const preview = useStore(previewOf(reading));
  const { opacity } = useStore(reading.state);
  const [ticks, setTicks] = useState(0);

  useEffect(() => {
    const tick = () => setTicks((count) => count + 1);
    const stops = [...sessions.values()].map((session) => session.state.subscribe(tick));
    return () => {
      for (const stop of stops) stop();
    };
  }, [sessions]);

  // Where slices lie is found once for each opened mask, not for each stroke.
  const places = useMemo(() => {
    const found = new Map<MaskVolume, number[]>();
    if (images === null) return found;
    const volumes = [...sessions.values()].map((one) => one.volume);
    for (const volume of preview === null ? volumes : [...volumes, preview.volume])
      found.set(volume, slicesOfImages(imagesOfSlices(volume, images), images.imageIds.length));
    return found;
  }, [sessions, preview, images]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: a tick says that a session has changed within
  return useMemo(() => {
    const layers: MaskLayer[] = [];
    for (const session of sessions.values()) {
      if (session.segmentation.series_instance_uid !== seriesUid) continue;
      const shown = preview?.segmentationId === session.id ? preview : null;
      const volume = shown?.volume ?? session.volume;
      const segments = shown?.segments ?? session.painted;
      const { edits, segments: described } = session.state.get();
      layers.push({
        key: session.id,
        volume,
        sliceOfImage: places.get(volume) ?? [],
        segments,
        opacity,
        stamp:
          shown !== null
            ? `${shown.title}|${opacity}`
            : [edits, opacity, ...described.map((one) => one.color + Number(one.visible))].join('|'),
      });
    }
    return layers;
  }, [sessions, preview, places, opacity, seriesUid, ticks]);
}
