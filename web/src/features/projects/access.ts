/** What one's role in a project allows, and what roles mean in words. */
import type { Project, Role, Roles } from '../../api/projects';

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

export type Reach = 'own' | 'all' | null;

/** How far a role reaches with an action on annotations or segmentations. */
export function reachOf(permissions: readonly string[], action: string): Reach {
  if (permissions.includes(`${action}.all`)) return 'all';
  return permissions.includes(`${action}.own`) ? 'own' : null;
}
