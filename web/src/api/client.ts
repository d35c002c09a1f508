/** The typed REST client; a refused call throws the server's problem. */
import createClient from 'openapi-fetch';
import { authorizedFetch } from './authorized-fetch';
import { failureOf } from './failure';
import type { components, paths } from './schema';

export type Segmentation = components['schemas']['Segmentation'];
export type Segment = Segmentation['segments'][number];
export type Model = components['schemas']['Model'];
export type Prediction = components['schemas']['Prediction'];

export const api = createClient<paths>({ baseUrl: window.location.origin, fetch: authorizedFetch });

/** The body of a call that succeeded. */
export async function bodyOf<T>(
  call: Promise<{ data?: T; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok || data === undefined) throw failureOf(response.status, error);
  return data;
}

/** A call that answers nothing. */
export async function done(call: Promise<{ error?: unknown; response: Response }>): Promise<void> {
  const { error, response } = await call;
  if (!response.ok) throw failureOf(response.status, error);
}
