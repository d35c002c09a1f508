/** What the page is told: changes of rows gathered for a moment, and sums that go with them. */
import { type Change, ENDS, type FileState, type FromWorker, type Progress, type Reason } from '../messages';
import type { Entry } from './entry';
import type { Waiting } from './server';

const FLUSH_MS = 150;

/** The server has all of it. */
const ARRIVED: ReadonlySet<FileState> = new Set([
  'sent',
  'verifying',
  'ingesting',
  'stored',
  'already',
  'used',
]);
/** Not taken in. */
const OUTSIDE: ReadonlySet<FileState> = new Set(['refused', 'skipped', 'lost']);

export class Report {
  readonly progress: Progress = {
    phase: 'working',
    totalBytes: 0,
    doneBytes: 0,
    sentBytes: 0,
    announced: false,
    waitingFor: null,
    problem: null,
  };
  private added: Entry[] = [];
  private readonly changed = new Map<number, Change>();
  private readonly studies = new Map<string, Record<string, number>>();
  private readonly partial = new Map<object, number>();
  private readonly waits: Waiting[] = [];
  private arrivedBytes = 0;
  private unended = 0;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private studiesChanged = false;

  constructor(private readonly say: (message: FromWorker) => void) {}

  get open(): number {
    return this.unended;
  }

  add(entry: Entry): void {
    this.added.push(entry);
    this.unended += ENDS.has(entry.state) ? 0 : 1;
    this.count(entry, 1);
    this.soon();
  }

  set(entry: Entry, state: FileState, reason: Reason | null = null): void {
    if (entry.state === state && entry.reason?.slug === reason?.slug) return;
    this.count(entry, -1);
    this.unended += Number(!ENDS.has(state)) - Number(!ENDS.has(entry.state));
    entry.state = state;
    entry.reason = reason;
    this.count(entry, 1);
    this.changed.set(entry.index, { index: entry.index, state, reason });
    this.soon();
  }

  /** `share` of the parcel's payload is on the server. */
  sending(parcel: object, bytes: number, more: number): void {
    this.partial.set(parcel, bytes);
    this.progress.sentBytes += more;
    this.soon();
  }

  sentWhole(parcel: object): void {
    this.partial.delete(parcel);
    this.soon();
  }

  study(studyUid: string, state: string, count = 1): void {
    const counts = this.studies.get(studyUid) ?? {};
    counts[state] = (counts[state] ?? 0) + count;
    this.studies.set(studyUid, counts);
    this.studiesChanged = true;
    this.soon();
  }

  /** Several requests may wait at once: the page hears of the one that is tried last. */
  waiting(wait: Waiting | null): void {
    if (wait === null) this.waits.pop();
    else this.waits.push(wait);
    this.progress.waitingFor = this.waits[this.waits.length - 1] ?? null;
    this.soon();
  }

  update(part: Partial<Progress>): void {
    Object.assign(this.progress, part);
    this.flush();
  }

  flush(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    if (this.added.length > 0) {
      const rows = this.added.map(({ path, size, state, reason }) => ({ path, size, state, reason }));
      this.say({ type: 'rows', rows });
      this.added = [];
    }
    if (this.changed.size > 0) this.say({ type: 'changes', changes: [...this.changed.values()] });
    this.changed.clear();
    if (this.studiesChanged) {
      const studies = [...this.studies].map(([studyUid, counts]) => ({ studyUid, counts: { ...counts } }));
      this.say({ type: 'studies', studies });
      this.studiesChanged = false;
    }
    const underWay = [...this.partial.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.progress.doneBytes = Math.min(this.arrivedBytes + underWay, this.progress.totalBytes);
    this.say({ type: 'progress', progress: { ...this.progress } });
  }

  private count(entry: Entry, sign: 1 | -1): void {
    if (!OUTSIDE.has(entry.state)) this.progress.totalBytes += sign * entry.size;
    if (ARRIVED.has(entry.state)) this.arrivedBytes += sign * entry.size;
  }

  private soon(): void {
    this.timer ??= setTimeout(() => this.flush(), FLUSH_MS);
  }
}
