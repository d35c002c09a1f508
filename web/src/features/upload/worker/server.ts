/**
 * Requests of the worker: with a token that the page lends, tried again for as long as the failure is one that passes.
 * A refusal is the caller's to judge; `hold` stops everything until the person goes on.
 */
import { failureOf, type RequestFailed } from '../../../api/failure';
import { passes, pauseMs } from '../backoff';
import type { Gate } from './gate';

/** Null: nobody is signed in any more. Throws TypeError when the server cannot be reached. */
export type Lend = (stale: string | null) => Promise<string | null>;

export interface Waiting {
  slug: string;
  until: number;
}

/** The server could not be reached, or asks to come again. */
export class ComeAgain extends Error {
  constructor(
    readonly slug: string,
    readonly afterSeconds: number,
  ) {
    super(slug);
  }
}

export class Server {
  private token: string | null = null;

  constructor(
    private readonly gate: Gate,
    private readonly lend: Lend,
    private readonly onWaiting: (waiting: Waiting | null) => void,
    /** Tells the person why it stopped, and resolves when they go on. */
    readonly hold: (failure: RequestFailed) => Promise<void>,
  ) {}

  /** Any answer but one that passes. */
  async request(path: string, init: RequestInit = {}): Promise<Response> {
    for (let failures = 0; ; ) {
      try {
        return await this.once(path, init);
      } catch (error) {
        if (!(error instanceof ComeAgain)) throw error;
        failures += 1;
        await this.pause(failures, error);
      }
    }
  }

  async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    for (;;) {
      const response = await this.request(path, init);
      if (response.ok) return (await response.json()) as T;
      await this.hold(await refusalOf(response));
    }
  }

  /** A single try. Throws ComeAgain; waits while it is paused. */
  async once(path: string, init: RequestInit = {}, signal?: AbortSignal): Promise<Response> {
    for (let renewed = false; ; ) {
      await this.gate.passed();
      const token = this.token ?? (await this.borrow(null));
      const headers = { ...(init.headers as Record<string, string>), Authorization: `Bearer ${token}` };
      const ended = signal ? AbortSignal.any([signal, this.gate.signal]) : this.gate.signal;
      let response: Response;
      try {
        response = await fetch(path, { ...init, headers, signal: ended });
      } catch (error) {
        if (!this.gate.isOpen) continue; // paused: the same again afterwards
        if (signal?.aborted) throw error;
        throw new ComeAgain('unreachable', 0);
      }
      if (response.status === 401 && !renewed) {
        renewed = true;
        await this.borrow(token);
        continue;
      }
      if (response.status === 401) {
        await this.hold(await refusalOf(response));
        renewed = false;
        continue;
      }
      if (response.ok || response.status < 400) return response;
      const failure = await refusalOf(response.clone());
      if (!passes(response.status, failure.problem)) return response;
      const asked = Number(response.headers.get('retry-after') ?? 0);
      throw new ComeAgain(failure.slug || 'unreachable', Number.isFinite(asked) ? asked : 0);
    }
  }

  async pause(failures: number, cause: ComeAgain): Promise<void> {
    const wait = pauseMs(failures, Math.random(), cause.afterSeconds);
    this.onWaiting({ slug: cause.slug, until: Date.now() + wait });
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(done, wait);
      // A network that is back, or a person who paused, ends the wait.
      self.addEventListener('online', done, { once: true });
      this.gate.signal.addEventListener('abort', done, { once: true });
    });
    this.onWaiting(null);
  }

  private async borrow(stale: string | null): Promise<string> {
    for (let failures = 0; ; ) {
      try {
        const token = await this.lend(stale);
        if (token !== null) {
          this.token = token;
          return token;
        }
        await this.hold(failureOf(401, { type: 'unauthenticated', title: 'Signed out' }));
      } catch (error) {
        if (!(error instanceof TypeError)) throw error;
        failures += 1;
        await this.pause(failures, new ComeAgain('unreachable', 0));
      }
    }
  }
}

export async function refusalOf(response: Response): Promise<RequestFailed> {
  const isJson = response.headers.get('content-type')?.includes('json') ?? false;
  return failureOf(response.status, isJson ? await response.json() : null);
}
