/** One's own account, and the administration of accounts. */
import { authorizedFetch } from './authorized-fetch';
import { failureOfResponse } from './failure';

export interface User {
  id: string;
  username: string;
  email: string | null;
  display_name: string;
  state: 'pending' | 'active' | 'suspended';
  is_admin: boolean;
  created_at: string;
}

export interface Passkey {
  id: string;
  name: string;
  created_at: string;
  last_used_at: string | null;
}

export interface Profile {
  user: User;
  has_password: boolean;
  has_totp: boolean;
  recovery_codes: number;
  passkeys: Passkey[];
  linked: boolean;
}

export interface Session {
  id: string;
  client: string;
  address: string;
  created_at: string;
  last_used_at: string;
  current: boolean;
}

export interface ApiKey {
  id: string;
  handle: string;
  name: string;
  scopes: string[] | null;
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
}

export interface SignInWays {
  sign_up: boolean;
  passkey: boolean;
  oidc: string | null;
}

export interface NewTotp {
  secret: string;
  qr_svg: string;
}

export interface PasskeyCreation {
  transaction: string;
  options: PublicKeyCredentialCreationOptionsJSON;
}

export interface PasskeyRequest {
  transaction: string;
  options: PublicKeyCredentialRequestOptionsJSON;
}

export interface StepUpProof {
  password?: string;
  totp?: string;
  recovery_code?: string;
  transaction?: string;
  passkey?: unknown;
}

const ME = '/api/v1/users/me';

export const getProfile = () => call<Profile>('GET', `${ME}/profile`);
export const updateProfile = (change: { display_name?: string; email?: string }) =>
  call<User>('PATCH', ME, change);
export const changePassword = (current_password: string, new_password: string) =>
  call<void>('POST', `${ME}/password`, { current_password, new_password });

export const listSessions = async () => (await call<{ items: Session[] }>('GET', '/api/v1/sessions')).items;
export const endSession = (id: string) => call<void>('DELETE', `/api/v1/sessions/${id}`);
export const endOtherSessions = () => call<{ ended: number }>('DELETE', '/api/v1/sessions');

export const listApiKeys = async () => (await call<{ items: ApiKey[] }>('GET', '/api/v1/api-keys')).items;
export const issueApiKey = (key: { name: string; scopes?: string[]; expires_at?: string }) =>
  call<{ id: string; key: string }>('POST', '/api/v1/api-keys', key);
export const revokeApiKey = (id: string) => call<void>('DELETE', `/api/v1/api-keys/${id}`);

export const beginTotp = () => call<NewTotp>('POST', `${ME}/totp`);
export const confirmTotp = (code: string) =>
  call<{ recovery_codes: string[] }>('POST', `${ME}/totp/confirm`, { code });
export const removeTotp = () => call<void>('DELETE', `${ME}/totp`);
export const makeRecoveryCodes = () => call<{ recovery_codes: string[] }>('POST', `${ME}/recovery-codes`);

export const beginPasskey = () => call<PasskeyCreation>('POST', `${ME}/passkeys/challenge`);
export const addPasskey = (transaction: string, passkey: unknown, name: string) =>
  call<Passkey>('POST', `${ME}/passkeys`, { transaction, passkey, name });
export const removePasskey = (id: string) => call<void>('DELETE', `${ME}/passkeys/${id}`);

export const beginStepUp = () => call<PasskeyRequest>('POST', '/api/v1/auth/step-up/passkey');
export const stepUp = (proof: StepUpProof) => call<void>('POST', '/api/v1/auth/step-up', proof);
export const linkOidc = () => call<{ redirect_url: string }>('POST', '/api/v1/auth/oidc/link');

export const listUsers = async () => (await call<{ items: User[] }>('GET', '/api/v1/users')).items;
export const changeUserState = (id: string, action: 'approve' | 'suspend' | 'activate') =>
  call<User>('POST', `/api/v1/users/${id}/${action}`);
export const updateUser = (id: string, change: { is_admin: boolean }) =>
  call<User>('PATCH', `/api/v1/users/${id}`, change);

export interface SharedAccess {
  name: string;
  studies: { study_instance_uid: string; series_instance_uids: string[] }[];
}

/** What needs no account yet. */
export const openShareLink = (token: string, password?: string) =>
  call<SharedAccess>('POST', '/api/v1/share', { token, password, cookie: true }, fetch);
export const getSignInWays = () => call<SignInWays>('GET', '/api/v1/auth/ways', undefined, fetch);
export const signUp = (form: { username: string; email: string; display_name: string; password: string }) =>
  call<void>('POST', '/api/v1/auth/sign-up', form, fetch);
export const askForReset = (username: string) =>
  call<void>('POST', '/api/v1/auth/password-reset', { username }, fetch);
export const resetPassword = (token: string, password: string) =>
  call<void>('POST', '/api/v1/auth/password-reset/confirm', { token, password }, fetch);

async function call<T>(
  method: string,
  path: string,
  body?: unknown,
  send: typeof authorizedFetch = authorizedFetch,
): Promise<T> {
  const response = await send(path, {
    method,
    ...(body === undefined
      ? {}
      : { body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' } }),
  });
  if (!response.ok) throw await failureOfResponse(response);
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}
