/**
 * Who is signed in: the access token in memory, the refresh token in this tab's session storage.
 * A refresh token serves once, so one refresh runs at a time and everybody waits for it.
 */
import { failureOfResponse } from './failure';

const REFRESH_KEY = 'annotomy.refresh';
const NAME_KEY = 'annotomy.username';
/** Renew this long before expiry, so that no request leaves with a token that dies on the way. */
const RENEW_BEFORE_EXPIRY_MS = 60_000;

interface TokenAnswer {
  access_token: string;
  refresh_token: string;
  expires_in: number;
}

let accessToken: string | null = null;
let renewal: ReturnType<typeof setTimeout> | undefined;
let refreshing: Promise<boolean> | null = null;
const endListeners = new Set<() => void>();

export function currentAccessToken(): string | null {
  return accessToken;
}

export function currentUsername(): string {
  return sessionStorage.getItem(NAME_KEY) ?? '';
}

/** Calls back when the session ends, by signing out or because it could not be renewed. */
export function onSessionEnd(listener: () => void): () => void {
  endListeners.add(listener);
  return () => endListeners.delete(listener);
}

export async function signIn(username: string, password: string): Promise<void> {
  const response = await postJson('/api/v1/auth/token', { username, password });
  if (!response.ok) throw await failureOfResponse(response);
  sessionStorage.setItem(NAME_KEY, username);
  hold(await response.json());
}

export async function signOut(): Promise<void> {
  const refreshToken = sessionStorage.getItem(REFRESH_KEY);
  if (refreshToken !== null) await postJson('/api/v1/auth/logout', { refresh_token: refreshToken });
  end();
}

/** True when there is an access token afterwards; after a reload it comes from the refresh token. */
export async function ensureSignedIn(): Promise<boolean> {
  return accessToken !== null || refresh();
}

export function refresh(): Promise<boolean> {
  refreshing ??= exchange().finally(() => {
    refreshing = null;
  });
  return refreshing;
}

async function exchange(): Promise<boolean> {
  const refreshToken = sessionStorage.getItem(REFRESH_KEY);
  if (refreshToken === null) return false;
  const response = await postJson('/api/v1/auth/refresh', { refresh_token: refreshToken });
  if (response.ok) {
    hold(await response.json());
    return true;
  }
  end();
  return false;
}

function hold(answer: TokenAnswer): void {
  accessToken = answer.access_token;
  sessionStorage.setItem(REFRESH_KEY, answer.refresh_token);
  clearTimeout(renewal);
  const lifetimeMs = answer.expires_in * 1000;
  renewal = setTimeout(refresh, Math.max(lifetimeMs - RENEW_BEFORE_EXPIRY_MS, lifetimeMs / 2));
}

function end(): void {
  accessToken = null;
  clearTimeout(renewal);
  sessionStorage.removeItem(REFRESH_KEY);
  sessionStorage.removeItem(NAME_KEY);
  for (const listener of endListeners) listener();
}

function postJson(url: string, body: unknown): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
}
