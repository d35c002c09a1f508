/** The audit: records, their export, and the review of each month. */
import { authorizedFetch } from './authorized-fetch';
import { api, bodyOf } from './client';
import { failureOfResponse } from './failure';
import type { components } from './schema';

type Schemas = components['schemas'];
export type AuditLine = Schemas['AuditLine'];
export type Review = Awaited<ReturnType<typeof getReview>>;
export type Report = NonNullable<Review['report']>;
export type ExportFormat = Schemas['ExportRequest']['format'];

/** What is asked for; empty fields ask for nothing. Times are ISO with their offset. */
export interface AuditSearch {
  since: string;
  until: string;
  actor: string;
  action: string;
  object: string;
  patient: string;
  project_id: string;
  outcome: string;
  reason: string;
}

const PAGE = 100;

export const getMe = () => bodyOf(api.GET('/api/v1/users/me'));

export function searchAudit(search: AuditSearch, after: number, signal: AbortSignal) {
  const query = { ...filled(search), order: 'newest' as const, limit: PAGE, ...(after > 0 && { after }) };
  return bodyOf(api.GET('/api/v1/audit', { params: { query }, signal }));
}

/** The file, with the name that the server gives it. */
export async function exportAudit(
  search: AuditSearch,
  format: ExportFormat,
  reason: string,
): Promise<{ name: string; file: Blob }> {
  const { object, ...rest } = filled(search);
  const filter = { ...rest, ...(object && { object_id: object }) };
  const response = await authorizedFetch('/api/v1/audit/export', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ format, reason, filter }),
  });
  if (!response.ok) throw await failureOfResponse(response);
  const name = /filename="([^"]+)"/.exec(response.headers.get('content-disposition') ?? '')?.[1];
  return { name: name ?? `audit.${format}`, file: await response.blob() };
}

export const listReviews = async () => (await bodyOf(api.GET('/api/v1/audit/reviews'))).items;
export const getReview = (month: string) =>
  bodyOf(api.GET('/api/v1/audit/reviews/{month}', { params: { path: { month } } }));
export const signReview = (month: string, note: string) =>
  bodyOf(api.POST('/api/v1/audit/reviews/{month}/sign', { params: { path: { month } }, body: { note } }));
export const verifyAudit = () => bodyOf(api.POST('/api/v1/audit/verify'));

function filled(search: AuditSearch): Partial<AuditSearch> {
  return Object.fromEntries(Object.entries(search).filter(([, value]) => value !== ''));
}
