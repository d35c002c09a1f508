/** One's uploads, as the server follows them. The sending itself is the upload page's worker's. */
import { api, bodyOf, done } from './client';
import type { components } from './schema';

export type Upload = components['schemas']['Upload'];
export type UploadFile = components['schemas']['UploadFile'];

const at = (upload_id: string) => ({ params: { path: { upload_id } } });

export const listUploads = (cursor: string | null, limit: number) =>
  bodyOf(api.GET('/api/v1/uploads', { params: { query: { cursor, limit } } }));
export const getUpload = (id: string) => bodyOf(api.GET('/api/v1/uploads/{upload_id}', at(id)));
export const removeUpload = (id: string) => done(api.DELETE('/api/v1/uploads/{upload_id}', at(id)));
