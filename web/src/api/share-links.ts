/** Links that show studies to who has no account: given out, listed, revoked. */
import { api, bodyOf, done } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];
export type ShareLink = Schemas['ShareLink'];
export type NewShareLink = Schemas['NewShareLink'];
export type IssuedShareLink = Schemas['IssuedShareLink'];

const at = (project_id: string) => ({ params: { path: { project_id } } });

export const listShareLinks = async (id: string) =>
  (await bodyOf(api.GET('/api/v1/projects/{project_id}/share-links', at(id)))).items;
export const createShareLink = (id: string, body: NewShareLink) =>
  bodyOf(api.POST('/api/v1/projects/{project_id}/share-links', { ...at(id), body }));
export const revokeShareLink = (project_id: string, link_id: string) =>
  done(
    api.DELETE('/api/v1/projects/{project_id}/share-links/{link_id}', {
      params: { path: { project_id, link_id } },
    }),
  );
