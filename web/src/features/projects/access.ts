/** What one's role in a project allows, and what roles mean in words. */
import { useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { listRoles, type Project, type Role, type RoleLabel, type Roles } from '../../api/projects';

export interface TabProps {
  project: Project;
  access: ProjectAccess;
}

export interface ProjectAccess {
  /** Roles that somebody can have in this project: those of every project, then its own. */
  roles: Role[];
  permissions: Roles['permissions'];
  may: (permission: string) => boolean;
  roleNamed: (name: string) => Role | undefined;
}

export function accessOf(project: Project, roles: Roles): ProjectAccess {
  const ofProjects = roles.items.filter((role) => role.scope === 'project');
  const mine = new Set(ofProjects.find((role) => role.name === project.role)?.permissions);
  return {
    roles: ofProjects,
    permissions: roles.permissions.filter((one) => one.scope === 'project'),
    may: (permission) => mine.has(permission),
    roleNamed: (name) => ofProjects.find((role) => role.name === name),
  };
}

export function useRoles(projectId: string) {
  return useQuery({ queryKey: ['roles', projectId], queryFn: () => listRoles(projectId) });
}

/** The label in the chosen language. */
export function useLabel(): (label: RoleLabel) => string {
  const { i18n } = useTranslation();
  return (label) => (i18n.language === 'ko' ? label.ko : label.en);
}

export type Reach = 'own' | 'all' | null;

/** How far a role reaches with an action on annotations or segmentations. */
export function reachOf(permissions: readonly string[], action: string): Reach {
  if (permissions.includes(`${action}.all`)) return 'all';
  return permissions.includes(`${action}.own`) ? 'own' : null;
}
