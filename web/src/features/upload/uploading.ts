/**
 * The upload that this tab is busy with. It lives outside of the page, so that somebody may look at studies meanwhile; the
 * worker does the work, and here is what components see of it.
 */
import { currentAccessToken, onSessionEnd, refresh } from '../../api/session';
import { removeUpload } from '../../api/uploads';
import { Store } from '../../lib/store';
import { newUuid } from '../../lib/uuid';
import type { Source } from './gather';
import { type KeptDrop, Memory } from './memory';
import type {
  Drop,
  FileState,
  FromWorker,
  GeometryForm,
  Progress,
  Row,
  StudyOutcome,
  ToWorker,
} from './messages';
import { Rate } from './rate';

export interface Uploading {
  drop: Drop;
  resumed: boolean;
  /** Changed in place, since there may be a hundred thousand: `version` tells of it. */
  rows: Row[];
  version: number;
  counts: Record<FileState, number>;
  progress: Progress;
  rate: number | null;
  secondsLeft: number | null;
  studies: StudyOutcome[];
  /** Everything that was given has been found. */
  gathered: boolean;
  /** Pictures that a geometry form is asked for. */
  pictures: number;
  /** It can be gone on with after the tab is closed. */
  kept: boolean;
}

export const uploading = new Store<Uploading | null>(null);

/** How often the rate is told anew: where nothing moves, no word comes that would let it fall. */
const MEASURE_MS = 2_000;

let worker: Worker | null = null;
let measuring: ReturnType<typeof setInterval> | undefined;
let rate = new Rate();
let releaseLock: () => void = () => undefined;

interface Wishes {
  ownerId: string;
  projectId: string | null;
  form: GeometryForm | null;
}

export async function start(source: Source, wishes: Wishes): Promise<void> {
  const drop: Drop = { id: newUuid(), createdAt: Date.now(), ...wishes };
  const kept = {
    ...drop,
    salt: newUuid(),
    files: 0,
    bytes: 0,
    touchedAt: Date.now(),
    handles: source.handles,
  };
  await run(kept, source, false);
}

/** False when another tab is busy with it. */
export async function resume(kept: KeptDrop, source: Source): Promise<boolean> {
  const handles = source.handles.length > 0 ? source.handles : kept.handles;
  return run({ ...kept, handles, touchedAt: Date.now() }, source, true);
}

async function run(kept: KeptDrop, source: Source, resumed: boolean): Promise<boolean> {
  if (!(await lock(kept.id))) return false;
  const memory = await Memory.open();
  await memory?.keepDrop(kept);
  const { id, ownerId, projectId, form, createdAt } = kept;
  const drop: Drop = { id, ownerId, projectId, form, createdAt };
  rate = new Rate();
  uploading.set(beginning(drop, resumed, memory !== null));
  worker = new Worker(new URL('./worker/upload.worker.ts', import.meta.url), { type: 'module' });
  worker.onmessage = ({ data }: MessageEvent<FromWorker>) => take(data);
  worker.onerror = (event) => fail(event.message);
  window.addEventListener('beforeunload', warn);
  measuring = setInterval(measure, MEASURE_MS);
  tell({ type: 'begin', drop });
  let files = 0;
  let bytes = 0;
  try {
    for await (const batch of source.batches()) {
      files += batch.length;
      bytes += batch.reduce((sum, { file }) => sum + file.size, 0);
      tell({ type: 'files', files: batch });
    }
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    fail(error.message); // a folder that went away while it was walked
    return true;
  }
  // A second visit may give only part; what is to be done was counted by the first.
  if (uploading.get()?.drop.id === id && uploading.get()?.progress.phase !== 'finished')
    await memory?.keepDrop({
      ...kept,
      files: Math.max(files, kept.files),
      bytes: Math.max(bytes, kept.bytes),
    });
  memory?.close();
  update({ gathered: true });
  tell({ type: 'gathered' });
  return true;
}

export function pause(): void {
  rate.reset();
  tell({ type: 'pause' });
}

export function goOn(): void {
  tell({ type: 'go-on' });
}

export function answerForm(form: GeometryForm | null): void {
  update({ pictures: 0 });
  tell({ type: 'form', form });
}

/** What is stored stays; what was on its way is removed from the server, and nothing of it is remembered here. */
export async function giveUp(dropId: string): Promise<void> {
  if (uploading.get()?.drop.id === dropId) dismiss();
  const memory = await Memory.open();
  const open = (await memory?.manifests(dropId))?.flatMap((one) => one.parcels) ?? [];
  await Promise.allSettled(open.map(({ uploadId }) => removeUpload(uploadId)));
  await memory?.forget(dropId);
  memory?.close();
}

/** Ends the worker and shows an empty page; an unfinished upload is still remembered. */
export function dismiss(): void {
  endWorker();
  uploading.set(null);
}

onSessionEnd(dismiss);

function take(message: FromWorker): void {
  const shown = uploading.get();
  if (shown === null) return;
  if (message.type === 'token-wanted') void lend(message.stale);
  else if (message.type === 'pictures') update({ pictures: message.count });
  else if (message.type === 'studies') update({ studies: message.studies });
  else if (message.type === 'progress') takeProgress(shown, message.progress);
  else {
    if (message.type === 'rows')
      for (const row of message.rows) {
        shown.rows.push(row);
        shown.counts[row.state] += 1;
      }
    else
      for (const { index, state, reason } of message.changes) {
        const row = shown.rows[index] as Row;
        shown.counts[row.state] -= 1;
        shown.counts[state] += 1;
        row.state = state;
        row.reason = reason;
      }
    update({ version: shown.version + 1 });
  }
}

function takeProgress(shown: Uploading, progress: Progress): void {
  const now = Date.now();
  if (progress.phase === 'working') rate.add(now, progress.sentBytes);
  if (progress.phase === 'finished') endWorker();
  update({ progress });
  measure();
  if (shown.progress.phase !== progress.phase && progress.phase !== 'working') rate.reset();
}

function measure(): void {
  const shown = uploading.get();
  if (shown === null) return;
  const now = Date.now();
  const { announced, totalBytes, doneBytes } = shown.progress;
  update({
    rate: rate.bytesPerSecond(now),
    secondsLeft: announced ? rate.secondsLeft(now, totalBytes - doneBytes) : null,
  });
}

function endWorker(): void {
  worker?.terminate();
  worker = null;
  clearInterval(measuring);
  window.removeEventListener('beforeunload', warn);
  releaseLock();
}

async function lend(stale: string | null): Promise<void> {
  const held = currentAccessToken();
  if (held !== null && held !== stale) {
    tell({ type: 'token', token: held, reachable: true });
    return;
  }
  try {
    await refresh();
    tell({ type: 'token', token: currentAccessToken(), reachable: true });
  } catch {
    tell({ type: 'token', token: null, reachable: false }); // the worker tries again
  }
}

function fail(text: string): void {
  const shown = uploading.get();
  if (shown === null) return;
  endWorker();
  update({ progress: { ...shown.progress, phase: 'stopped', problem: { slug: 'broken', text } } });
}

/** One tab at a time goes on with an upload, where the browser can tell (over HTTPS). */
async function lock(id: string): Promise<boolean> {
  if (navigator.locks === undefined) return true;
  return new Promise((resolve) => {
    void navigator.locks.request(`annotomy-upload-${id}`, { ifAvailable: true }, (held) => {
      resolve(held !== null);
      if (held === null) return undefined;
      return new Promise<void>((release) => {
        releaseLock = release;
      });
    });
  });
}

function tell(message: ToWorker): void {
  worker?.postMessage(message);
}

function update(part: Partial<Uploading>): void {
  const shown = uploading.get();
  if (shown !== null) uploading.set({ ...shown, ...part });
}

function warn(event: BeforeUnloadEvent): void {
  event.preventDefault();
}

function beginning(drop: Drop, resumed: boolean, kept: boolean): Uploading {
  return {
    drop,
    resumed,
    rows: [],
    version: 0,
    counts: {
      found: 0,
      reading: 0,
      asked: 0,
      waiting: 0,
      sending: 0,
      sent: 0,
      verifying: 0,
      ingesting: 0,
      stored: 0,
      already: 0,
      used: 0,
      refused: 0,
      skipped: 0,
      lost: 0,
    },
    progress: {
      phase: 'working',
      totalBytes: 0,
      doneBytes: 0,
      sentBytes: 0,
      announced: false,
      waitingFor: null,
      problem: null,
    },
    rate: null,
    secondsLeft: null,
    studies: [],
    gathered: false,
    pictures: 0,
    kept,
  };
}
