/** Uploads that this browser began and did not finish: gone on with here. */
import { Alert, Button, Group, Text } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { ConfirmButton } from '../../components/confirm-button';
import { Section } from '../../components/section';
import { useDay } from '../../lib/day';
import { DropZone } from './drop-zone';
import { useFigures } from './figures';
import { type Source, sourceOfKept } from './gather';
import { type KeptDrop, Memory } from './memory';
import classes from './upload.module.css';
import { giveUp, resume, uploading } from './uploading';

const KEY = ['unfinished-uploads'];

async function unfinishedOf(ownerId: string): Promise<KeptDrop[]> {
  const memory = await Memory.open();
  const drops = (await memory?.drops(ownerId, Date.now())) ?? [];
  memory?.close();
  return drops;
}

/** Fresh each time it is looked at: another tab may have finished one. */
export function useUnfinished(ownerId: string | undefined) {
  return useQuery({
    queryKey: [...KEY, ownerId],
    queryFn: () => unfinishedOf(ownerId ?? ''),
    enabled: ownerId !== undefined,
    staleTime: 0,
    gcTime: 0,
  });
}

export function Unfinished({
  drops,
  projectName,
}: {
  drops: KeptDrop[];
  projectName: (id: string | null) => string;
}) {
  const { t } = useTranslation();
  const day = useDay();
  const { size } = useFigures();
  const client = useQueryClient();
  const [asked, setAsked] = useState<string | null>(null);
  const [busy, setBusy] = useState<string | null>(null);
  const starting = useRef(false);
  const goOn = async (drop: KeptDrop, source: Source) => {
    const busyWith = uploading.get();
    if (starting.current || (busyWith !== null && busyWith.progress.phase !== 'finished')) return;
    starting.current = true;
    const begun = await resume(drop, source);
    starting.current = false;
    if (!begun) setBusy(drop.id);
  };
  // The browser may ask whether the folder may be read again; giving it again works whatever the answer is.
  const ask = async (drop: KeptDrop) => {
    setAsked(drop.id);
    const source = await sourceOfKept(drop.handles);
    if (source !== null) await goOn(drop, source);
  };
  return (
    <Section title={t('upload.unfinished', { count: drops.length })} hint={t('upload.unfinishedHint')}>
      {drops.map((drop) => (
        <div key={drop.id} className={classes.unfinished} data-testid="unfinished">
          <Group justify="space-between" wrap="nowrap">
            <div>
              <Text size="sm" fw={600}>
                {t('upload.begun', { day: day(new Date(drop.createdAt).toISOString()) })}
              </Text>
              <Text size="xs" c="dimmed">
                {[
                  ...(drop.files > 0 ? [t('upload.fileCount', { count: drop.files }), size(drop.bytes)] : []),
                  t('upload.into', { project: projectName(drop.projectId) }),
                ].join(' · ')}
              </Text>
            </div>
            <Group gap="xs" wrap="nowrap">
              <Button size="compact-sm" data-testid="resume" onClick={() => void ask(drop)}>
                {t('upload.goOn')}
              </Button>
              <ConfirmButton
                label={t('upload.remove')}
                question={t('upload.giveUpQuestion')}
                testId="forget"
                onConfirm={() => void giveUp(drop.id).then(() => client.invalidateQueries({ queryKey: KEY }))}
              />
            </Group>
          </Group>
          {busy === drop.id && (
            <Alert color="yellow" variant="light" mt="xs" role="alert">
              {t('upload.otherTab')}
            </Alert>
          )}
          {asked === drop.id && (
            <DropZone
              title={t('upload.giveAgain')}
              hint={t('upload.giveAgainHint')}
              onGiven={(source) => void goOn(drop, source)}
            />
          )}
        </div>
      ))}
    </Section>
  );
}
