/** Why a file was not taken in, in the reader's words where we know the reason, else in the server's. */
import type { TFunction } from 'i18next';
import type { Reason } from './messages';

export const KNOWN_REASONS = [
  'archive-limit',
  'another-instance',
  'broken',
  'changed',
  'content-mismatch',
  'data-alone',
  'different-content',
  'disk-full',
  'forbidden',
  'form-alone',
  'geometry-missing',
  'inconsistent-hierarchy',
  'media-directory',
  'media-file-missing',
  'no-geometry',
  'not-dicom',
  'not-found',
  'not-in-manifest',
  'quota-exceeded',
  'too-large',
  'too-many-requests',
  'unauthenticated',
  'unreachable',
  'unreadable',
  'unsupported-file',
  'upload-busy',
] as const;

/** The server's own words say more than ours could: what is wrong with this volume, which limit. */
const TOLD_BY_SERVER = new Set(['volume-unreadable', 'instance-refused', 'bad-request', 'not-taken-over']);

export function reasonText({ slug, text }: Reason, t: TFunction): string {
  if ((KNOWN_REASONS as readonly string[]).includes(slug)) return t(`upload.reason.${slug}`);
  if (TOLD_BY_SERVER.has(slug) && text) return text;
  return text || t('upload.reason.unknown', { slug });
}
