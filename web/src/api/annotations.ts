/** /api/v1/annotations and label sets, as the viewer uses them. */
import { api, bodyOf, done } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];
export type Annotation = Schemas['Annotation'];
export type NewAnnotation = Schemas['NewAnnotation'];
export type ProjectLabel = Schemas['ProjectLabel'];
export type AnnotationStep = 'submit' | 'approve' | 'reject' | 'reopen';
export type Patch = Partial<Pick<NewAnnotation, 'geometry' | 'label' | 'description'>>;

const PAGE = 500;
/** A study with more is a data set, not a reading; the list says that there are more. */
const MAX_SHOWN = 2000;

export async function listAnnotations(studyUid: string, signal: AbortSignal): Promise<Annotation[]> {
  const found: Annotation[] = [];
  let cursor: string | null = null;
  do {
    const page: Schemas['Page_annotomy.annotations.schemas.Annotation_'] = await bodyOf(
      api.GET('/api/v1/annotations', {
        params: { query: { study_instance_uid: studyUid, limit: PAGE, cursor } },
        signal,
      }),
    );
    found.push(...page.items);
    cursor = page.next;
  } while (cursor !== null && found.length < MAX_SHOWN);
  return found;
}

export const createAnnotation = (body: NewAnnotation, key: string) =>
  bodyOf(api.POST('/api/v1/annotations', { body, params: { header: { 'Idempotency-Key': key } } }));

export const editAnnotation = (annotation_id: string, version: number, body: Patch, key: string) =>
  bodyOf(
    api.PATCH('/api/v1/annotations/{annotation_id}', {
      body,
      params: {
        path: { annotation_id },
        header: { 'If-Match': `"${version}"`, 'Idempotency-Key': key },
      },
    }),
  );

export const deleteAnnotation = (annotation_id: string, version: number) =>
  done(
    api.DELETE('/api/v1/annotations/{annotation_id}', {
      params: { path: { annotation_id }, header: { 'If-Match': `"${version}"` } },
    }),
  );

export const restoreAnnotation = (annotation_id: string, version: number) =>
  bodyOf(
    api.POST('/api/v1/annotations/{annotation_id}/restore', {
      params: { path: { annotation_id } },
      body: { version, why: '' },
    }),
  );

export const getAnnotation = (annotation_id: string) =>
  bodyOf(api.GET('/api/v1/annotations/{annotation_id}', { params: { path: { annotation_id } } }));

export function stepAnnotation(annotation_id: string, version: number, step: AnnotationStep) {
  const params = { path: { annotation_id }, header: { 'If-Match': `"${version}"` } };
  const body = null;
  switch (step) {
    case 'submit':
      return bodyOf(api.POST('/api/v1/annotations/{annotation_id}/submit', { params, body }));
    case 'approve':
      return bodyOf(api.POST('/api/v1/annotations/{annotation_id}/approve', { params, body }));
    case 'reject':
      return bodyOf(api.POST('/api/v1/annotations/{annotation_id}/reject', { params, body }));
    case 'reopen':
      return bodyOf(api.POST('/api/v1/annotations/{annotation_id}/reopen', { params, body }));
  }
}

export const listLabels = async (project_id: string, signal: AbortSignal) =>
  (await bodyOf(api.GET('/api/v1/labels', { params: { query: { project_id } }, signal }))).items;
