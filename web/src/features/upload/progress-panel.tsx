/** How the upload under way does, and what can be done about it. */
import { Alert, Button, Group, Progress, Text } from '@mantine/core';
import { useHotkeys, useInterval } from '@mantine/hooks';
import type { TFunction } from 'i18next';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { ConfirmButton } from '../../components/confirm-button';
import { useFigures } from './figures';
import { FileList } from './file-list';
import { ENDS, type FileState } from './messages';
import { PicturesQuestion } from './pictures-question';
import { reasonText } from './reason-text';
import { StudyReport } from './study-report';
import classes from './upload.module.css';
import { dismiss, giveUp, goOn, pause, type Uploading } from './uploading';

/** Read aloud no more often than this while it goes on. */
const TELL_MS = 10_000;

export function ProgressPanel({ upload }: { upload: Uploading }) {
  const { t } = useTranslation();
  const { size, duration, count } = useFigures();
  const { progress, counts, rows } = upload;
  const { phase } = progress;
  const ended = [...ENDS].reduce((sum, state) => sum + counts[state], 0);
  const toggle = () => {
    if (phase === 'paused') goOn();
    else if (phase === 'working') pause();
  };
  useHotkeys([['p', toggle]]);
  const percent = progress.totalBytes === 0 ? 0 : (progress.doneBytes / progress.totalBytes) * 100;
  const title = titleOf(upload, t);
  const facts = [
    t('upload.filesOf', { done: count(ended), total: count(rows.length) }),
    t('upload.bytesOf', { done: size(progress.doneBytes), total: size(progress.totalBytes) }),
    ...(phase === 'working' &&
    upload.rate !== null &&
    upload.rate > 0 &&
    progress.doneBytes < progress.totalBytes
      ? [t('upload.rate', { rate: size(upload.rate) })]
      : []),
    ...(phase === 'working' && upload.secondsLeft !== null && upload.secondsLeft > 0
      ? [t('upload.left', { time: duration(upload.secondsLeft) })]
      : []),
  ];
  return (
    <section className={classes.panel} aria-label={title} data-testid="upload-panel" data-phase={phase}>
      <Group justify="space-between" align="flex-start" wrap="nowrap">
        <div>
          <h2 className={classes.panelTitle} data-testid="upload-title">
            {title}
          </h2>
          <Text size="sm" c="dimmed" className={classes.facts} data-testid="upload-facts">
            {facts.join(' · ')}
          </Text>
        </div>
        <Group gap="xs" wrap="nowrap">
          {(phase === 'working' || phase === 'paused') && (
            <Button size="compact-sm" variant="default" onClick={toggle} data-testid="pause">
              {t(phase === 'paused' ? 'upload.goOn' : 'upload.pause')}
            </Button>
          )}
          {phase === 'finished' ? (
            <Button size="compact-sm" onClick={dismiss} data-testid="upload-more">
              {t('upload.more')}
            </Button>
          ) : (
            <ConfirmButton
              label={t('upload.giveUp')}
              question={t('upload.giveUpQuestion')}
              testId="give-up"
              onConfirm={() => void giveUp(upload.drop.id)}
            />
          )}
        </Group>
      </Group>
      {phase !== 'finished' && (
        <Progress
          value={percent}
          size="md"
          aria-label={t('upload.progress')}
          animated={phase === 'working'}
          color={phase === 'stopped' ? 'red' : phase === 'paused' ? 'gray' : 'teal'}
        />
      )}
      <Spoken title={title} facts={facts} phase={phase} />
      {progress.waitingFor !== null && phase === 'working' && <Waiting {...progress.waitingFor} />}
      {phase === 'stopped' && progress.problem !== null && (
        <Alert color="red" variant="light" role="alert" data-testid="upload-problem">
          <Group justify="space-between">
            <Text size="sm">{reasonText(progress.problem, t)}</Text>
            {progress.problem.slug === 'broken' ? (
              <Button size="compact-sm" variant="default" onClick={dismiss}>
                {t('upload.startOver')}
              </Button>
            ) : (
              <Button size="compact-sm" variant="default" onClick={goOn} data-testid="go-on">
                {t('app.retry')}
              </Button>
            )}
          </Group>
        </Alert>
      )}
      {upload.pictures > 0 && <PicturesQuestion count={upload.pictures} />}
      {!upload.kept && phase !== 'finished' && (
        <Text size="xs" c="dimmed">
          {t('upload.notKept')}
        </Text>
      )}
      {phase === 'finished' && <StudyReport upload={upload} />}
      <FileList upload={upload} />
    </section>
  );
}

function titleOf({ progress, counts, rows, gathered }: Uploading, t: TFunction): string {
  if (progress.phase === 'finished') {
    const shortfall: FileState[] = ['refused', 'lost'];
    const left = shortfall.reduce((sum, state) => sum + counts[state], 0);
    return left > 0 ? t('upload.title.partly', { count: left }) : t('upload.title.finished');
  }
  if (progress.phase !== 'working') return t(`upload.title.${progress.phase}`);
  if (progress.announced && counts.waiting + counts.sending === 0 && rows.length > 0)
    return t('upload.title.takingIn');
  return t(gathered || counts.sending > 0 ? 'upload.title.working' : 'upload.title.reading');
}

/** Screen readers hear of a change at once, and of numbers now and then. */
function Spoken({ title, facts, phase }: { title: string; facts: string[]; phase: string }) {
  const [spoken, setSpoken] = useState(title);
  const latest = [title, ...facts].join('. ');
  const ticker = useInterval(() => setSpoken(latest), TELL_MS);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the clock starts anew with each phase only
  useEffect(() => {
    setSpoken(latest);
    ticker.start();
    return ticker.stop;
  }, [phase, title]);
  return (
    <div className="visually-hidden" role="status" data-testid="upload-spoken">
      {spoken}
    </div>
  );
}

function Waiting({ slug, until }: { slug: string; until: number }) {
  const { t } = useTranslation();
  const { duration } = useFigures();
  const [now, setNow] = useState(Date.now());
  useInterval(() => setNow(Date.now()), 1000, { autoInvoke: true });
  const seconds = Math.max(1, Math.ceil((until - now) / 1000));
  return (
    <Alert color="yellow" variant="light" data-testid="upload-waiting">
      <Text size="sm">
        {reasonText({ slug, text: '' }, t)} {t('upload.againIn', { time: duration(seconds) })}
      </Text>
    </Alert>
  );
}
