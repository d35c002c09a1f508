/** What a failure says to people: in their language where we know the slug, else the server's own words. */
import type { TFunction } from 'i18next';
import { RequestFailed } from '../api/failure';

const KNOWN = [
  'too-many-requests',
  'weak-password',
  'link-expired',
  'share-refused',
  'share-password-needed',
  'not-active',
  'provider-failed',
  'conflict',
  'unauthenticated',
];

export function failureText(error: Error, t: TFunction): string {
  if (error instanceof RequestFailed) {
    if (error.slug === 'too-many-requests')
      return t('identity.problem.too-many-requests', { seconds: Number(error.problem.retry_after_s ?? 1) });
    return KNOWN.includes(error.slug) && error.slug !== 'conflict'
      ? t(`identity.problem.${error.slug}`)
      : error.message;
  }
  // The browser's own refusals: the person declined the passkey, or none fits.
  if (error instanceof DOMException) return t('identity.problem.passkey');
  return t('signIn.unreachable');
}

/** For the slug that a sign-in service's way back ends with. */
export function problemText(slug: string, t: TFunction): string {
  return t(`identity.problem.${KNOWN.includes(slug) ? slug : 'provider-failed'}`);
}
