/**
 * Brings the operation log to the server: in order for each object, again after failures, also what an earlier page or
 * another tab left behind. Nothing leaves the log before the server has acknowledged it or a person has decided.
 */
import { RequestFailed } from '../../api/failure';
import { onSessionEnd } from '../../api/session';
import { Store } from '../../lib/store';
import { newUuid } from '../../lib/uuid';
import { acknowledged, appended, type Operation, sendable, type Work } from './operations';
import { readOperations, writeOperations } from './outbox-database';
import { type Result, send } from './outbox-send';

export interface OutboxState {
  log: readonly Operation[];
  sending: boolean;
  /** The server did not answer the last time. */
  offline: boolean;
  /** Not even the disk took a change: then the page must stay open. */
  unsafe: boolean;
}

/** Strokes within this time become one version; long enough to draw on, short enough to be forgotten. */
const QUIET_MS = 900;
const RETRY_FIRST_MS = 1_000;
const RETRY_MOST_MS = 30_000;
const WORTH_ANOTHER_TRY = ['unauthenticated', 'too-many-requests', 'idempotency-key-in-flight'];
const LOCK = 'annotomy-tab-';

type Listener = (operation: Operation, result: Result) => void;

export class Outbox {
  readonly state = new Store<OutboxState>({ log: [], sending: false, offline: false, unsafe: false });
  readonly tab = newUuid();
  private userId = '';
  private started: Promise<void> | null = null;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private retryMs = RETRY_FIRST_MS;
  private readonly sent = new Set<string>();
  private readonly names = new Map<string, string>();
  private readonly versions = new Map<string, number>();
  private readonly listeners = new Set<Listener>();
  private readonly channel = new BroadcastChannel('annotomy-outbox');
  private lastAt = 0;

  constructor() {
    window.addEventListener('online', () => this.schedule(0));
    window.addEventListener('offline', () => this.state.update({ offline: true }));
    onSessionEnd(() => this.stop());
    // Held as long as this page lives: by it other pages know that its operations are cared for.
    void navigator.locks?.request(LOCK + this.tab, () => new Promise(() => undefined));
  }

  /** Takes up what this person left behind in pages that are gone. */
  start(userId: string): Promise<void> {
    if (this.userId !== userId) this.stop();
    this.userId = userId;
    this.started ??= this.begin().catch(() => this.state.update({ unsafe: true }));
    return this.started;
  }

  /** When what was left behind is known: who shows an object before that would show it without. */
  ready(): Promise<void> {
    return this.started ?? Promise.resolve();
  }

  /** Nobody's work is sent in another's name: it stays on the disk until its owner signs in again. */
  private stop(): void {
    clearTimeout(this.timer);
    this.userId = '';
    this.started = null;
    this.sent.clear();
    this.state.update({ log: [] });
  }

  onDone(listener: Listener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Another tab of this browser has stored something of a study. */
  onElsewhere(listener: (studyUid: string) => void): () => void {
    const heard = (event: MessageEvent<string>) => listener(event.data);
    this.channel.addEventListener('message', heard);
    return () => this.channel.removeEventListener('message', heard);
  }

  /** The server's name of an object that was made here. */
  nameOf(object: string): string {
    return this.names.get(object) ?? object;
  }

  /** The last version of an annotation that this page stored, before any deletion of it. */
  versionOf(object: string): number | undefined {
    return this.versions.get(this.nameOf(object));
  }

  add(studyUid: string, object: string, work: Work): void {
    this.lastAt = Math.max(Date.now(), this.lastAt + 1);
    const operation: Operation = {
      id: newUuid(),
      object: this.nameOf(object),
      studyUid,
      userId: this.userId,
      tab: this.tab,
      at: this.lastAt,
      ...work,
    };
    const { log, dropped } = appended(this.state.get().log, operation, this.sent);
    this.keep(log, dropped);
    this.schedule(work.kind === 'masks.save' ? QUIET_MS : 0);
  }

  /**
   * What a person decided about a refused operation: other work in its place, or none. What they did to the object since
   * then is part of the decision.
   */
  resolve(operation: Operation, work: Work | null): void {
    const log = this.state.get().log;
    const decided = log.filter((one) => one.object === operation.object && one.at >= operation.at);
    const rest = log.filter((one) => !decided.includes(one));
    const { refused: _, ...shared } = operation;
    const next = work === null ? [] : [{ ...shared, ...work, id: newUuid(), tab: this.tab } as Operation];
    this.keep(
      [...rest, ...next].sort((a, b) => a.at - b.at),
      decided.map((one) => one.id),
    );
    this.schedule(0);
  }

  flush(): void {
    this.schedule(0);
  }

  private async begin(): Promise<void> {
    const held = (await navigator.locks?.query())?.held?.map((lock) => lock.name) ?? [];
    const left = (await readOperations())
      .filter((one) => one.userId === this.userId)
      .filter((one) => one.tab === this.tab || !held.includes(LOCK + one.tab))
      .map((one): Operation => ({ ...one, tab: this.tab }));
    for (const one of left) this.sent.add(one.id); // it may have been on its way: its key must keep its request
    const known = new Set(this.state.get().log.map((one) => one.id));
    this.keep([...left.filter((one) => !known.has(one.id)), ...this.state.get().log], []);
    this.schedule(0);
  }

  private schedule(delayMs: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.run(), delayMs);
  }

  private async run(): Promise<void> {
    if (this.state.get().sending) return;
    this.state.update({ sending: true });
    try {
      for (;;) {
        const next = sendable(this.state.get().log)[0];
        if (next === undefined) break;
        await this.deliver(next);
      }
      this.retryMs = RETRY_FIRST_MS;
      this.state.update({ offline: false });
    } catch (error) {
      // Signed out: the sign-in page comes, and after it this log is taken up again.
      if (error instanceof RequestFailed && error.status === 401) return;
      this.state.update({ offline: true });
      this.schedule(this.retryMs);
      this.retryMs = Math.min(this.retryMs * 2, RETRY_MOST_MS);
    } finally {
      this.state.update({ sending: false });
    }
  }

  /** Throws what is worth another try; what the server decided against waits for a person. */
  private async deliver(operation: Operation): Promise<void> {
    this.sent.add(operation.id);
    try {
      const result = await send(operation);
      if (result.object !== operation.object) this.names.set(operation.object, result.object);
      if (!('deleted' in result)) this.versions.set(result.object, result.version);
      this.keep(acknowledged(this.state.get().log, operation, result), [operation.id]);
      for (const listener of this.listeners) listener(operation, result);
      this.channel.postMessage(operation.studyUid);
    } catch (error) {
      if (!(error instanceof RequestFailed)) throw error;
      if (error.status >= 500 || WORTH_ANOTHER_TRY.includes(error.slug)) throw error;
      const refused = { slug: error.slug, message: error.message, problem: error.problem };
      this.keep(
        this.state.get().log.map((one) => (one.id === operation.id ? { ...one, refused } : one)),
        [],
      );
    }
  }

  private keep(log: readonly Operation[], removed: readonly string[]): void {
    const before = new Set(this.state.get().log);
    this.state.update({ log });
    writeOperations(this.state.get().unsafe ? log : log.filter((one) => !before.has(one)), removed).then(
      () => this.state.update({ unsafe: false }),
      () => this.state.update({ unsafe: true }),
    );
  }
}

export const outbox = new Outbox();
