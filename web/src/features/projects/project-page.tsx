/** One project: each part of its administration in a tab of its own, named in the address. */
import { Center, Loader, Tabs, Text, Title } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import type { ComponentType } from 'react';
import { useTranslation } from 'react-i18next';
import { RequestFailed } from '../../api/failure';
import { getProject } from '../../api/projects';
import { FailureNotice } from '../../components/failure-notice';
import { accessOf, type ProjectAccess, type TabProps } from './access';
import { AccessTab } from './access-tab';
import { AskAccess } from './ask-access';
import { DataTab } from './data-tab';
import { GroupsTab } from './groups-tab';
import { MembersTab } from './members-tab';
import { OverviewTab } from './overview-tab';
import classes from './projects.module.css';
import { RequestsTab } from './requests-tab';
import { RolesTab } from './roles-tab';
import { RulesTab } from './rules-tab';
import { SharesTab } from './shares-tab';
import { useRoles } from './use-roles';

interface Tab {
  name: string;
  page: ComponentType<TabProps>;
  /** Who has it not does not see the tab; the server refuses all the same. */
  needs?: string;
}

export const TABS: readonly Tab[] = [
  { name: 'overview', page: OverviewTab },
  { name: 'members', page: MembersTab },
  { name: 'groups', page: GroupsTab, needs: 'project.manage' },
  { name: 'roles', page: RolesTab },
  { name: 'requests', page: RequestsTab, needs: 'project.manage' },
  { name: 'rules', page: RulesTab, needs: 'project.manage' },
  { name: 'data', page: DataTab, needs: 'study.read' },
  { name: 'access', page: AccessTab, needs: 'project.manage' },
  { name: 'shares', page: SharesTab, needs: 'study.share' },
];

const visibleTabs = (access: ProjectAccess) => TABS.filter((tab) => !tab.needs || access.may(tab.needs));

export function ProjectPage() {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { projectId } = useParams({ from: '/signed-in/projects/$projectId' });
  const wanted = useSearch({ from: '/signed-in/projects/$projectId' }).tab;
  const project = useQuery({ queryKey: ['project', projectId], queryFn: () => getProject(projectId) });
  const roles = useRoles(projectId);

  const error = project.error ?? roles.error;
  if (error instanceof RequestFailed && error.status === 404) return <AskAccess projectId={projectId} />;
  if (error !== null)
    return (
      <FailureNotice
        title={t('projects.failed')}
        error={error}
        onRetry={() => {
          void project.refetch();
          void roles.refetch();
        }}
      />
    );
  if (!project.isSuccess || !roles.isSuccess)
    return (
      <Center h="100%">
        <Loader aria-label={t('projects.loading')} />
      </Center>
    );
  const access = accessOf(project.data, roles.data);
  const tabs = visibleTabs(access);
  const shown = tabs.find((tab) => tab.name === wanted) ?? (tabs[0] as Tab);
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <div>
          <Title order={1} size="h3">
            {project.data.name}
          </Title>
          {project.data.description && (
            <Text size="sm" c="dimmed">
              {project.data.description}
            </Text>
          )}
        </div>
        <Tabs
          value={shown.name}
          onChange={(tab) =>
            void navigate({
              to: '/projects/$projectId',
              params: { projectId },
              search: tab === null || tab === 'overview' ? {} : { tab },
            })
          }
        >
          <Tabs.List mb="md" aria-label={t('projects.parts')}>
            {tabs.map((tab) => (
              <Tabs.Tab key={tab.name} value={tab.name} data-testid={`tab-${tab.name}`}>
                {t(`projects.tabs.${tab.name}`)}
              </Tabs.Tab>
            ))}
          </Tabs.List>
          <Tabs.Panel value={shown.name} className={classes.panel}>
            <shown.page project={project.data} access={access} />
          </Tabs.Panel>
        </Tabs>
      </div>
    </div>
  );
}
