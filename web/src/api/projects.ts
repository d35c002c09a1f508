/** Projects: members, groups, roles, rules, requests, and what they hold. */
import { api, bodyOf, done } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];
export type Project = Schemas['Project'];
export type Member = Schemas['Member'];
export type Candidate = Schemas['Candidate'];
export type ProjectGroup = Schemas['ProjectGroup'];
export type Group = Schemas['Group'];
export type Role = Schemas['Role'];
export type RoleLabel = Schemas['RoleLabel'];
export type Roles = Schemas['Roles'];
export type NewRule = Schemas['NewRule'];
export type Rule = Schemas['RuleAnswer'];
export type RuleAttribute = Schemas['RuleAttribute'];
export type Preview = Schemas['Preview'];
export type PreviewStudy = Schemas['PreviewStudy'];
export type AccessRequest = Schemas['AccessRequest'];
export type NewAccessRequest = Schemas['NewAccessRequest'];
export type ProjectStudy = Schemas['ProjectStudy'];

const at = (project_id: string) => ({ params: { path: { project_id } } });

export const listProjects = async () => (await bodyOf(api.GET('/api/v1/projects'))).items;
export const createProject = (body: Schemas['NewProject']) => bodyOf(api.POST('/api/v1/projects', { body }));
export const getProject = (id: string) => bodyOf(api.GET('/api/v1/projects/{project_id}', at(id)));
export const listRoles = (project_id: string | null = null) =>
  bodyOf(api.GET('/api/v1/roles', { params: { query: { project_id } } }));

export const listMembers = async (id: string) =>
  (await bodyOf(api.GET('/api/v1/projects/{project_id}/members', at(id)))).items;
export const setMember = (id: string, body: Schemas['NewMember']) =>
  bodyOf(api.POST('/api/v1/projects/{project_id}/members', { ...at(id), body }));
export const removeMember = (project_id: string, user_id: string) =>
  done(
    api.DELETE('/api/v1/projects/{project_id}/members/{user_id}', {
      params: { path: { project_id, user_id } },
    }),
  );
export const findCandidates = async (project_id: string, search: string, signal: AbortSignal) =>
  (
    await bodyOf(
      api.GET('/api/v1/projects/{project_id}/candidates', {
        params: { path: { project_id }, query: { search } },
        signal,
      }),
    )
  ).items;

export const listProjectGroups = async (id: string) =>
  (await bodyOf(api.GET('/api/v1/projects/{project_id}/groups', at(id)))).items;
export const setProjectGroup = (id: string, body: Schemas['NewProjectGroup']) =>
  bodyOf(api.POST('/api/v1/projects/{project_id}/groups', { ...at(id), body }));
export const removeProjectGroup = (project_id: string, group_id: string) =>
  done(
    api.DELETE('/api/v1/projects/{project_id}/groups/{group_id}', {
      params: { path: { project_id, group_id } },
    }),
  );

export const listGroups = async () => (await bodyOf(api.GET('/api/v1/groups'))).items;
export const createGroup = (name: string) => bodyOf(api.POST('/api/v1/groups', { body: { name } }));
export const addToGroup = (group_id: string, user_id: string) =>
  done(api.POST('/api/v1/groups/{group_id}/members', { params: { path: { group_id } }, body: { user_id } }));
export const removeFromGroup = (group_id: string, user_id: string) =>
  done(
    api.DELETE('/api/v1/groups/{group_id}/members/{user_id}', { params: { path: { group_id, user_id } } }),
  );

export const setRole = (id: string, body: Schemas['NewRole']) =>
  bodyOf(api.POST('/api/v1/projects/{project_id}/roles', { ...at(id), body }));
export const deleteRole = (project_id: string, name: string) =>
  done(api.DELETE('/api/v1/projects/{project_id}/roles/{name}', { params: { path: { project_id, name } } }));

export const listRuleAttributes = async () => (await bodyOf(api.GET('/api/v1/rule-attributes'))).items;
export const listRules = async (id: string) =>
  (await bodyOf(api.GET('/api/v1/projects/{project_id}/rules', at(id)))).items;
export const createRule = (id: string, body: NewRule) =>
  bodyOf(api.POST('/api/v1/projects/{project_id}/rules', { ...at(id), body }));
export const changeRule = (project_id: string, rule_id: string, version: number, body: NewRule) =>
  bodyOf(
    api.PATCH('/api/v1/projects/{project_id}/rules/{rule_id}', {
      params: { path: { project_id, rule_id }, header: { 'If-Match': `"${version}"` } },
      body,
    }),
  );
export const deleteRule = (project_id: string, rule_id: string) =>
  done(
    api.DELETE('/api/v1/projects/{project_id}/rules/{rule_id}', {
      params: { path: { project_id, rule_id } },
    }),
  );
/** What a member would see under these rules, which nobody has saved. */
export const previewRules = (id: string, user_id: string, rules: NewRule[], signal: AbortSignal) =>
  bodyOf(
    api.POST('/api/v1/projects/{project_id}/rules/preview', { ...at(id), body: { user_id, rules }, signal }),
  );

export const listRequests = async () => (await bodyOf(api.GET('/api/v1/access-requests'))).items;
export const askForAccess = (body: NewAccessRequest) => bodyOf(api.POST('/api/v1/access-requests', { body }));
export const decideRequest = (
  request_id: string,
  decision: 'approve' | 'deny',
  body: Schemas['Decision'],
): Promise<AccessRequest> => {
  const call = { params: { path: { request_id } }, body };
  return decision === 'approve'
    ? bodyOf(api.POST('/api/v1/access-requests/{request_id}/approve', call))
    : bodyOf(api.POST('/api/v1/access-requests/{request_id}/deny', call));
};
export const withdrawRequest = (request_id: string) =>
  done(api.DELETE('/api/v1/access-requests/{request_id}', { params: { path: { request_id } } }));

export const listProjectStudies = (project_id: string, cursor: string | null, limit: number) =>
  bodyOf(
    api.GET('/api/v1/projects/{project_id}/studies', {
      params: { path: { project_id }, query: { cursor, limit } },
    }),
  );
export const assignStudy = (id: string, body: Schemas['NewProjectStudy']) =>
  bodyOf(api.POST('/api/v1/projects/{project_id}/studies', { ...at(id), body }));
export const unassignStudy = (project_id: string, study: ProjectStudy) =>
  done(
    api.DELETE('/api/v1/projects/{project_id}/studies/{study_instance_uid}', {
      params: {
        path: { project_id, study_instance_uid: study.study_instance_uid },
        query: {
          series_instance_uid: study.series_instance_uid ?? null,
          sop_instance_uid: study.sop_instance_uid ?? null,
        },
      },
    }),
  );
