/** A project at a glance: how much there is, and what one's own role allows. */
import { Badge, Text } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { listMembers, listProjectStudies, listRequests, listRules } from '../../api/projects';
import { Section } from '../../components/section';
import type { TabProps } from './access';
import classes from './projects.module.css';
import { useLabel } from './use-roles';

export function OverviewTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const label = useLabel();
  const manages = access.may('project.manage');
  const members = useQuery({ queryKey: ['members', project.id], queryFn: () => listMembers(project.id) });
  const studies = useQuery({
    queryKey: ['project-study-count', project.id],
    queryFn: () => listProjectStudies(project.id, null, 1),
    enabled: access.may('study.read'),
  });
  const rules = useQuery({
    queryKey: ['rules', project.id],
    queryFn: () => listRules(project.id),
    enabled: manages,
  });
  const requests = useQuery({
    queryKey: ['access-requests'],
    queryFn: listRequests,
    enabled: manages,
  });
  const open = requests.data?.filter((one) => one.project_id === project.id && one.state === 'pending');
  const figures = [
    { tab: 'members', value: members.data?.length },
    ...(access.may('study.read') ? [{ tab: 'data', value: studies.data?.total ?? undefined }] : []),
    ...(manages
      ? [
          { tab: 'rules', value: rules.data?.length },
          { tab: 'requests', value: open?.length },
        ]
      : []),
  ];
  const role = access.roleNamed(project.role);
  return (
    <Section
      title={t('projects.tabs.overview')}
      error={members.error ?? studies.error ?? rules.error ?? requests.error}
    >
      <div className={classes.figures}>
        {figures.map(({ tab, value }) => (
          <Link
            key={tab}
            to="/projects/$projectId"
            params={{ projectId: project.id }}
            search={{ tab }}
            className={`${classes.figure} ${classes.project}`}
          >
            <span>
              <span className={classes.number}>{value ?? '–'}</span>
              <Text size="xs" c="dimmed" component="span">
                {t(`projects.figures.${tab}`)}
              </Text>
            </span>
          </Link>
        ))}
      </div>
      <Text size="sm" mt="lg">
        {t('projects.yourRole', { role: role ? label(role.label) : project.role })}
      </Text>
      <div className={classes.words}>
        {access.permissions
          .filter((permission) => role?.permissions.includes(permission.name))
          .map((permission) => (
            <Badge key={permission.name} variant="light" color="gray" tt="none" fw={400}>
              {label(permission.label)}
            </Badge>
          ))}
      </div>
    </Section>
  );
}
