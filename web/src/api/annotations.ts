/** /api/v1/annotations and labels, as the viewer uses them. */
import { api, bodyOf } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];
export type Annotation = Schemas['Annotation'];
export type NewAnnotation = Schemas['NewAnnotation'];
export type AnnotationVersion = Schemas['annotomy_annotations_schemas_VersionEntry'];
export type ProjectLabel = Schemas['ProjectLabel'];
export type Patch = Partial<Pick<NewAnnotation, 'geometry' | 'label' | 'description'>>;
