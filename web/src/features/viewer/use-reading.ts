/** Makes the reading of a study and keeps it in step with the outbox, other tabs and the server. */
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useMemo } from 'react';
import { listAnnotations } from '../../api/annotations';
import { projectsOfStudy, type WorkProject } from '../../api/work-project';
import { useStore } from '../../lib/store';
import { type ShownAnnotation, withOperations } from './operations';
import { outbox } from './outbox';
import { type Me, Reading } from './reading';

export function useReading(studyUid: string, me: Me): Reading {
  const cache = useQueryClient();
  const reading = useMemo(() => new Reading(studyUid, me, outbox, cache), [studyUid, me, cache]);
  useEffect(() => {
    void outbox.start(me.id);
    const stopDone = outbox.onDone((operation, result) => reading.took(operation, result));
    const stopElsewhere = outbox.onElsewhere((elsewhere) => {
      if (elsewhere !== studyUid) return;
      void cache.invalidateQueries({ queryKey: reading.annotationsKey });
      void cache.invalidateQueries({ queryKey: ['segmentations'] });
    });
    return () => {
      stopDone();
      stopElsewhere();
    };
  }, [reading, studyUid, me, cache]);
  return reading;
}

export function useAnnotations(reading: Reading): {
  annotations: readonly ShownAnnotation[];
  error: Error | null;
  isPending: boolean;
  refetch: () => void;
} {
  const { log } = useStore(reading.outbox.state);
  const stored = useQuery({
    queryKey: reading.annotationsKey,
    queryFn: ({ signal }) => listAnnotations(reading.studyUid, signal),
  });
  const annotations = useMemo(
    () =>
      withOperations(
        stored.data ?? [],
        log.filter((one) => one.studyUid === reading.studyUid),
        reading.me.username,
      ).sort((a, b) => b.created_at.localeCompare(a.created_at)),
    [stored.data, log, reading],
  );
  return {
    annotations,
    error: stored.error,
    isPending: stored.isPending,
    refetch: () => void stored.refetch(),
  };
}

/** The projects that hold the study; work goes into the first that takes it. */
export function useWorkProjects(studyUid: string): readonly WorkProject[] {
  const projects = useQuery({
    queryKey: ['projects-of-study', studyUid],
    queryFn: ({ signal }) => projectsOfStudy(studyUid, signal),
    staleTime: 5 * 60_000,
  });
  return projects.data ?? NONE;
}

const NONE: readonly WorkProject[] = [];
