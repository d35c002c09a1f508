import { expect, it } from 'vitest';
import type { Project, Roles } from '../../api/projects';
import { accessOf, reachOf } from './access';

const label = { en: '', ko: '' };
const roles: Roles = {
  items: [
    { name: 'viewer', label, permissions: ['study.read'], scope: 'project' },
    { name: 'chief', label, permissions: ['project.manage'], scope: 'project', project_id: 'p' },
    { name: 'system_administrator', label, permissions: ['user.manage'], scope: 'global' },
  ],
  permissions: [
    { name: 'study.read', label, scope: 'project' },
    { name: 'user.manage', label, scope: 'global' },
  ],
};
const project = { id: 'p', name: '', description: '', role: 'chief', created_at: '' } as Project;

it('takes what one may do from the own role, one of the project included', () => {
  const access = accessOf(project, roles);
  expect(access.may('project.manage')).toBe(true);
  expect(access.may('study.read')).toBe(false);
});

it('offers roles and permissions of projects only', () => {
  const access = accessOf(project, roles);
  expect(access.roles.map((role) => role.name)).toEqual(['viewer', 'chief']);
  expect(access.permissions.map((one) => one.name)).toEqual(['study.read']);
});

it('tells own from all, the wider first', () => {
  expect(reachOf(['annotation.edit.own', 'annotation.edit.all'], 'annotation.edit')).toBe('all');
  expect(reachOf(['annotation.edit.own'], 'annotation.edit')).toBe('own');
  expect(reachOf(['annotation.edit.own'], 'annotation.read')).toBe(null);
});
