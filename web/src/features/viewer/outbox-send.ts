/** One operation as a request, and what its answer makes of the object. */
import {
  type Annotation,
  createAnnotation,
  deleteAnnotation,
  editAnnotation,
  restoreAnnotation,
} from '../../api/annotations';
import type { Segmentation } from '../../api/client';
import { RequestFailed } from '../../api/failure';
import { encodeSlices, saveMasks } from '../../api/masks';
import type { Operation } from './operations';

export type Result =
  | { object: string; version: number; annotation: Annotation }
  | { object: string; version: number; segmentation: Segmentation }
  | { object: string; version: number; deleted: true };

export async function send(operation: Operation): Promise<Result> {
  switch (operation.kind) {
    case 'annotation.create':
      return stored(await createAnnotation(operation.body, operation.id));
    case 'annotation.edit':
      return stored(await editAnnotation(operation.object, operation.base, operation.patch, operation.id));
    case 'annotation.delete':
      return deleted(operation.object, operation.base);
    case 'annotation.restore':
      return stored(await restoreAnnotation(operation.object, operation.version));
    case 'masks.save': {
      const body = encodeSlices(operation.shapeKji, operation.slices, operation.describe, '');
      const segmentation = await saveMasks(operation.object, operation.base, body, operation.id);
      return { object: segmentation.id, version: segmentation.version, segmentation };
    }
  }
}

function stored(annotation: Annotation): Result {
  return { object: annotation.id, version: annotation.version, annotation };
}

/** A deletion takes no key: one whose answer was lost finds the annotation deleted, which is what was asked. */
async function deleted(id: string, version: number): Promise<Result> {
  try {
    await deleteAnnotation(id, version);
  } catch (error) {
    if (!(error instanceof RequestFailed && error.slug === 'annotation-deleted')) throw error;
  }
  return { object: id, version: version + 1, deleted: true };
}
