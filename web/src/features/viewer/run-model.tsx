/** Asks for a prediction on the shown series and follows it until its segmentation is there. */
import { Button, Loader, Menu, Progress, Text } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api, bodyOf, type Prediction } from '../../api/client';
import { textOfProblem } from '../../api/failure';
import type { WorkProject } from '../../api/work-project';
import classes from './run-model.module.css';

const POLL_MS = 1000;

interface Props {
  seriesUid: string;
  projects: readonly WorkProject[];
}

export function RunModel({ seriesUid, projects }: Props) {
  const { t } = useTranslation();
  const [asked, setAsked] = useState<{ id: string; jobId: string; seriesUid: string } | null>(null);
  const models = useQuery({
    queryKey: ['models'],
    queryFn: ({ signal }) => bodyOf(api.GET('/api/v1/models', { signal })),
  });
  const asking = useMutation({
    mutationFn: async (model: string) => {
      // Results belong to a project: one that holds the study and lets this person run models.
      const project_id = projects.find((one) => one.permissions.includes('model.run'))?.id;
      if (project_id === undefined) throw new Error(t('inference.noProject'));
      return bodyOf(
        api.POST('/api/v1/predictions', { body: { model, series_instance_uid: seriesUid, project_id } }),
      );
    },
    onSuccess: (prediction) => setAsked({ id: prediction.id, jobId: prediction.job_id, seriesUid }),
  });
  return (
    <>
      {asking.error !== null && (
        <Text size="xs" c="red" truncate title={asking.error.message} role="alert">
          {asking.error.message}
        </Text>
      )}
      {asked !== null && <PredictionProgress key={asked.id} asked={asked} onDismiss={() => setAsked(null)} />}
      <Menu position="bottom-end" width={260}>
        <Menu.Target>
          <Button size="compact-sm" loading={asking.isPending} data-testid="run-model">
            {t('inference.run')}
          </Button>
        </Menu.Target>
        <Menu.Dropdown>
          {models.isPending && <Loader size="xs" m="xs" />}
          {models.error !== null && <Menu.Label>{models.error.message}</Menu.Label>}
          {models.data?.items.length === 0 && <Menu.Label>{t('inference.noModels')}</Menu.Label>}
          {models.data?.items.map((model) => (
            <Menu.Item
              key={model.name}
              data-testid={`model-${model.name}`}
              onClick={() => asking.mutate(model.name)}
            >
              <Text size="sm" fw={500}>
                {model.title ?? model.name}
              </Text>
              <Text size="xs" c="dimmed" lineClamp={2}>
                {model.description ?? model.version}
              </Text>
            </Menu.Item>
          ))}
        </Menu.Dropdown>
      </Menu>
    </>
  );
}

function PredictionProgress(props: {
  asked: { id: string; jobId: string; seriesUid: string };
  onDismiss: () => void;
}) {
  const { t } = useTranslation();
  const cache = useQueryClient();
  const { id, jobId, seriesUid } = props.asked;
  const prediction = useQuery({
    queryKey: ['prediction', id],
    queryFn: ({ signal }) =>
      bodyOf(
        api.GET('/api/v1/predictions/{prediction_id}', { params: { path: { prediction_id: id } }, signal }),
      ),
    refetchInterval: (query) => (isOver(query.state.data) ? false : POLL_MS),
    staleTime: 0,
  });
  const over = isOver(prediction.data);
  const job = useQuery({
    queryKey: ['job', jobId],
    queryFn: ({ signal }) =>
      bodyOf(api.GET('/api/v1/jobs/{job_id}', { params: { path: { job_id: jobId } }, signal })),
    refetchInterval: over ? false : POLL_MS,
    staleTime: 0,
  });
  const state = prediction.data?.state ?? 'queued';
  useEffect(() => {
    if (state === 'succeeded') void cache.invalidateQueries({ queryKey: ['segmentations', seriesUid] });
  }, [state, cache, seriesUid]);
  const problem = prediction.data?.problem;
  return (
    <div className={classes.progress} data-testid="prediction" data-state={state}>
      <Text
        size="xs"
        c={problem ? 'red' : 'dimmed'}
        truncate
        title={problem ? textOfProblem(problem) : undefined}
      >
        {t(`inference.${state}`)}
        {problem && `: ${textOfProblem(problem)}`}
      </Text>
      {over ? (
        <Button size="compact-xs" variant="subtle" color="gray" onClick={props.onDismiss}>
          {t('inference.dismiss')}
        </Button>
      ) : (
        <Progress size="sm" w={90} value={Math.max(5, (job.data?.progress ?? 0) * 100)} animated />
      )}
    </div>
  );
}

function isOver(prediction: Prediction | undefined): boolean {
  return prediction !== undefined && prediction.state !== 'queued' && prediction.state !== 'running';
}
