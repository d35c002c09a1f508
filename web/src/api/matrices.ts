/** Bulk administration: a page of rows, all columns, and a cell for each pair; changes are saved together with a reason. */
import { api, bodyOf } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];
export type MemberMatrix = Schemas['MemberMatrix'];
export type MembershipChange = Schemas['MembershipChange'];
export type DataMatrix = Schemas['DataMatrix'];
export type AccessCell = Schemas['AccessCell'];
export type AccessChange = Schemas['AccessChange'];
export type CellResult = Schemas['CellResult'];

/** The most that one answer holds of either axis. */
const AXIS = 200;

export const getMemberMatrix = (q: string, row_cursor: string | null, signal: AbortSignal) =>
  bodyOf(
    api.GET('/api/v1/matrices/members', {
      params: { query: { q, row_limit: AXIS, column_limit: AXIS, row_cursor } },
      signal,
    }),
  );
export const changeMemberMatrix = (reason: string, changes: MembershipChange[]) =>
  bodyOf(api.PATCH('/api/v1/matrices/members', { body: { reason, changes } }));

export const getDataMatrix = (
  project_id: string,
  level: 'study' | 'series',
  q: string,
  row_cursor: string | null,
  signal: AbortSignal,
) =>
  bodyOf(
    api.GET('/api/v1/projects/{project_id}/matrices/data', {
      params: { path: { project_id }, query: { level, q, row_limit: AXIS, column_limit: AXIS, row_cursor } },
      signal,
    }),
  );
export const changeDataMatrix = (project_id: string, reason: string, changes: AccessChange[]) =>
  bodyOf(
    api.PATCH('/api/v1/projects/{project_id}/matrices/data', {
      params: { path: { project_id } },
      body: { reason, changes, assignments: [] },
    }),
  );
