/** Links that show studies to who has no account: given out, listed, revoked; and opened. */
import { api, bodyOf, done } from './client';
import { failureOfResponse } from './failure';
import type { components } from './schema';

type Schemas = components['schemas'];
export type ShareLink = Schemas['ShareLink'];
export type NewShareLink = Schemas['NewShareLink'];
export type IssuedShareLink = Schemas['IssuedShareLink'];
export type SharedAccess = Schemas['SharedAccess'];

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

/** Without an account: the access token of the answer reads what the link names, and the cookie lets pictures and OHIF do so. */
export async function openShareLink(token: string, password: string | null): Promise<SharedAccess> {
  const response = await fetch('/api/v1/share', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ token, password, cookie: true }),
  });
  if (!response.ok) throw await failureOfResponse(response);
  return response.json();
}
