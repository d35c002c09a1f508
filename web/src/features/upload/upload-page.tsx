/** Bringing studies in from the browser: one upload at a time, those that wait to be gone on with, and the earlier ones. */
import { Button, Collapse, Group, Select, Text, Title } from '@mantine/core';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { getMe } from '../../api/audit';
import { FailureNotice } from '../../components/failure-notice';
import { useStore } from '../../lib/store';
import { DropZone } from './drop-zone';
import { EarlierUploads, UPLOADS_KEY } from './earlier-uploads';
import type { Source } from './gather';
import { faultsOf, formOf, NO_GEOMETRY } from './geometry';
import { GeometryFieldset } from './geometry-fields';
import { ProgressPanel } from './progress-panel';
import { Unfinished, useUnfinished } from './unfinished';
import classes from './upload.module.css';
import { start, uploading } from './uploading';

/** The server's word for nobody's project in particular: what is stored goes to the person's own inbox. */
const INBOX = 'inbox';

export function UploadPage() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const upload = useStore(uploading);
  const me = useQuery({ queryKey: ['me'], queryFn: getMe });
  const unfinished = useUnfinished(me.data?.id);
  const [projectId, setProjectId] = useState<string>(INBOX);
  const [fields, setFields] = useState(NO_GEOMETRY);
  const [formOpen, setFormOpen] = useState(false);
  const projects = me.data?.projects.filter((one) => one.permissions.includes('study.store')) ?? [];
  const projectName = (id: string | null) =>
    me.data?.projects.find((one) => one.project_id === id)?.project_name ?? t('upload.inbox');
  const faults = faultsOf(fields, false);
  const faulty = Object.keys(faults).length > 0;
  const phase = upload?.progress.phase;

  // biome-ignore lint/correctness/useExhaustiveDependencies: what is over has changed the lists
  useEffect(() => {
    void client.invalidateQueries({ queryKey: UPLOADS_KEY });
    void unfinished.refetch();
    if (phase === 'finished') void client.invalidateQueries({ queryKey: ['studies'] });
  }, [phase === 'finished', upload === null]);

  const begin = (source: Source) => {
    if (!me.data) return;
    void start(source, {
      ownerId: me.data.id,
      projectId: projectId === INBOX ? null : projectId,
      form: formOf(fields),
    });
  };
  const others = unfinished.data?.filter((one) => one.id !== upload?.drop.id) ?? [];
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <Group justify="space-between" align="flex-end">
          <Title order={1} size="h3">
            {t('upload.heading')}
          </Title>
          {upload === null ? (
            <Select
              size="sm"
              w={280}
              label={t('upload.project')}
              data={[
                { value: INBOX, label: t('upload.inbox') },
                ...projects
                  .filter((one) => one.project_name !== INBOX)
                  .map((one) => ({ value: one.project_id, label: one.project_name })),
              ]}
              value={projectId}
              searchable
              allowDeselect={false}
              data-testid="upload-project"
              onChange={(value) => setProjectId(value ?? INBOX)}
            />
          ) : (
            <Text size="sm" c="dimmed">
              {t('upload.into', { project: projectName(upload.drop.projectId) })}
            </Text>
          )}
        </Group>
        {me.error && (
          <FailureNotice title={t('upload.meFailed')} error={me.error} onRetry={() => void me.refetch()} />
        )}
        {others.length > 0 && (upload === null || phase === 'finished') && (
          <Unfinished drops={others} projectName={projectName} />
        )}
        {upload === null ? (
          <div className={classes.panel}>
            <DropZone
              title={t('upload.dropHere')}
              hint={t('upload.formats')}
              disabled={!me.data || faulty}
              keys
              onGiven={begin}
            />
            <Group justify="space-between" gap="xs">
              <Button
                size="compact-sm"
                variant="subtle"
                aria-expanded={formOpen}
                data-testid="open-geometry"
                onClick={() => setFormOpen(!formOpen)}
              >
                {t('upload.geometry.title')}
              </Button>
              <Text size="xs" c="dimmed">
                {t('upload.keys')}
              </Text>
            </Group>
            <Collapse expanded={formOpen}>
              <Text size="xs" c="dimmed" mb="xs">
                {t('upload.geometry.hint')}
              </Text>
              <GeometryFieldset fields={fields} faults={faults} onChange={setFields} />
            </Collapse>
          </div>
        ) : (
          <ProgressPanel upload={upload} />
        )}
        <EarlierUploads busy={phase === 'working'} />
      </div>
    </div>
  );
}
