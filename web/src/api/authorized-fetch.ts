/** fetch with the bearer token; a token that the server no longer takes is renewed once. */
import { currentAccessToken, ensureSignedIn, refresh } from './session';

export async function authorizedFetch(input: Request | string, init?: RequestInit): Promise<Response> {
  await ensureSignedIn();
  const request = new Request(input, init);
  const response = await fetch(withToken(request.clone()));
  if (response.status !== 401 || !(await refresh())) return response;
  return fetch(withToken(request));
}

function withToken(request: Request): Request {
  const token = currentAccessToken();
  if (token !== null) request.headers.set('Authorization', `Bearer ${token}`);
  return request;
}
