/** One's projects, a new one, and what one asked for. */
import { Badge, Button, Group, Loader, Text, TextInput, Title } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { createProject, listProjects, listRoles } from '../../api/projects';
import { Section } from '../../components/section';
import { useDate } from '../../lib/day';
import { OwnRequests } from './own-requests';
import classes from './projects.module.css';
import { useLabel } from './use-roles';

export function ProjectsPage() {
  const { t } = useTranslation();
  const date = useDate();
  const projects = useQuery({ queryKey: ['projects'], queryFn: listProjects });
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <Group justify="space-between">
          <Title order={1} size="h3">
            {t('projects.title')}
          </Title>
          <Button component={Link} to="/matrix" size="compact-sm" variant="default">
            {t('matrix.members')}
          </Button>
        </Group>
        <Section title={t('projects.mine', { count: projects.data?.length ?? 0 })} error={projects.error}>
          {projects.isLoading && <Loader size="sm" mt="sm" aria-label={t('projects.loading')} />}
          {projects.data?.length === 0 && (
            <div className={classes.empty} data-testid="projects-empty">
              <Text fw={600}>{t('projects.none')}</Text>
              <Text size="sm" c="dimmed">
                {t('projects.noneHint')}
              </Text>
            </div>
          )}
          {projects.data?.map((project) => (
            <Link
              key={project.id}
              to="/projects/$projectId"
              params={{ projectId: project.id }}
              className={classes.project}
              data-testid="project"
            >
              <span className={classes.text}>
                <Text size="sm" fw={600} truncate>
                  {project.name}
                </Text>
                <Text size="xs" c="dimmed" truncate>
                  {[project.description, date(project.created_at)].filter(Boolean).join(' · ')}
                </Text>
              </span>
              <RoleBadge role={project.role} />
            </Link>
          ))}
        </Section>
        <NewProject />
        <OwnRequests />
      </div>
    </div>
  );
}

/** The role as it is labelled; one of the project's own goes by its short name until the project is opened. */
function RoleBadge({ role }: { role: string }) {
  const label = useLabel();
  const roles = useQuery({ queryKey: ['roles'], queryFn: () => listRoles() });
  const known = roles.data?.items.find((one) => one.name === role);
  return (
    <Badge variant="light" color="gray" tt="none">
      {known ? label(known.label) : role}
    </Badge>
  );
}

function NewProject() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const creating = useMutation({
    mutationFn: () => createProject({ name, description }),
    onSuccess: async (project) => {
      await client.invalidateQueries({ queryKey: ['projects'] });
      await client.invalidateQueries({ queryKey: ['me'] });
      await navigate({ to: '/projects/$projectId', params: { projectId: project.id } });
    },
  });
  return (
    <Section title={t('projects.new')} hint={t('projects.newHint')} error={creating.error}>
      <form
        className={classes.form}
        onSubmit={(event) => {
          event.preventDefault();
          creating.mutate();
        }}
      >
        <TextInput
          label={t('projects.name')}
          w={240}
          maxLength={200}
          value={name}
          data-testid="project-name"
          onChange={(event) => setName(event.currentTarget.value)}
        />
        <TextInput
          label={t('projects.description')}
          flex={1}
          miw={200}
          value={description}
          onChange={(event) => setDescription(event.currentTarget.value)}
        />
        <Button
          type="submit"
          disabled={!name.trim()}
          loading={creating.isPending}
          data-testid="create-project"
        >
          {t('projects.create')}
        </Button>
      </form>
    </Section>
  );
}
