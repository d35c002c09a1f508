/**
 * Who is signed in. The access token lives in memory; the refresh token in a cookie that no script can read, which the
 * browser sends to the sign-in routes of this server alone. Tabs share it: two that refresh at once get the same answer.
 */
import { failureOfResponse } from './failure';

/** Not a secret: says that asking for a token after a reload is worth it. */
const SIGNED_IN_KEY = 'annotomy.signed-in';
/** Renew this long before expiry, so that no request leaves with a token that dies on the way. */
const RENEW_BEFORE_EXPIRY_MS = 60_000;

interface TokenAnswer {
  access_token: string;
  expires_in: number;
}

/** What continues a sign-in after the password (problem `second-factor-required`). */
export interface SecondFactorChallenge {
  transaction: string;
  methods: ('totp' | 'recovery_code' | 'passkey')[];
  passkey_options: PublicKeyCredentialRequestOptionsJSON | null;
}

export interface SecondFactorProof {
  totp?: string;
  recovery_code?: string;
  passkey?: unknown;
}

let accessToken: string | null = null;
let renewal: ReturnType<typeof setTimeout> | undefined;
let refreshing: Promise<boolean> | null = null;
const endListeners = new Set<() => void>();

export function currentAccessToken(): string | null {
  return accessToken;
}

/** Calls back when the session ends, by signing out or because it could not be renewed. */
export function onSessionEnd(listener: () => void): () => void {
  endListeners.add(listener);
  return () => endListeners.delete(listener);
}

/** Null when signed in; otherwise what the second step needs. */
export async function signIn(username: string, password: string): Promise<SecondFactorChallenge | null> {
  const response = await postJson('/api/v1/auth/token', { username, password, cookie: true });
  if (response.ok) {
    await enter(response);
    return null;
  }
  const failure = await failureOfResponse(response);
  if (failure.slug !== 'second-factor-required') throw failure;
  return failure.problem as unknown as SecondFactorChallenge;
}

export async function continueSignIn(transaction: string, proof: SecondFactorProof): Promise<void> {
  await enter(await postJson('/api/v1/auth/token/second-factor', { transaction, cookie: true, ...proof }));
}

export async function signInWithPasskey(
  answer: (options: PublicKeyCredentialRequestOptionsJSON) => Promise<unknown>,
): Promise<void> {
  const begun = await postJson('/api/v1/auth/passkey/challenge', {});
  if (!begun.ok) throw await failureOfResponse(begun);
  const { transaction, options } = await begun.json();
  const passkey = await answer(options);
  await enter(await postJson('/api/v1/auth/passkey', { transaction, passkey, cookie: true }));
}

export async function signOut(): Promise<void> {
  await postJson('/api/v1/auth/logout', {});
  end();
}

/** True when there is an access token afterwards; after a reload it comes by the cookie. */
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
  const response = await postJson('/api/v1/auth/refresh', {});
  if (response.ok) {
    hold(await response.json());
    return true;
  }
  if (response.status >= 500 || response.status === 429) throw await failureOfResponse(response);
  if (accessToken !== null || localStorage.getItem(SIGNED_IN_KEY) !== null) end();
  return false;
}

async function enter(response: Response): Promise<void> {
  if (!response.ok) throw await failureOfResponse(response);
  hold(await response.json());
}

function hold(answer: TokenAnswer): void {
  accessToken = answer.access_token;
  localStorage.setItem(SIGNED_IN_KEY, '1');
  clearTimeout(renewal);
  const lifetimeMs = answer.expires_in * 1000;
  renewal = setTimeout(
    () => void refresh().catch(() => undefined), // the next request tries again and tells
    Math.max(lifetimeMs - RENEW_BEFORE_EXPIRY_MS, lifetimeMs / 2),
  );
}

function end(): void {
  accessToken = null;
  clearTimeout(renewal);
  localStorage.removeItem(SIGNED_IN_KEY);
  for (const listener of endListeners) listener();
}

function postJson(url: string, body: unknown): Promise<Response> {
  return fetch(url, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
}
