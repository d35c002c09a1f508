/** What the page and its worker say to each other, and the words that both use for a file on its way. */
import type { components } from '../../api/schema';

/**
 * found, reading (its hash is made), waiting (the server lacks it), sending, sent, verifying, ingesting: on its way.
 * asked: pictures wait for a geometry form. The rest is the end of a file; `lost` was announced before, and is not among
 * what was given now.
 */
export type FileState =
  | 'found'
  | 'reading'
  | 'asked'
  | 'waiting'
  | 'sending'
  | 'sent'
  | 'verifying'
  | 'ingesting'
  | 'stored'
  | 'already'
  | 'used'
  | 'refused'
  | 'skipped'
  | 'lost';

export const ENDS: ReadonlySet<FileState> = new Set([
  'stored',
  'already',
  'used',
  'refused',
  'skipped',
  'lost',
]);

/** A problem's slug, or one of our own words; the server's text for what has no translation. */
export interface Reason {
  slug: string;
  text: string;
}

export interface Row {
  path: string;
  size: number;
  state: FileState;
  reason: Reason | null;
}

export interface Change {
  index: number;
  state: FileState;
  reason: Reason | null;
}

/** What became of one study: its images by state. */
export interface StudyOutcome {
  studyUid: string;
  counts: Record<string, number>;
}

/** preparing: files are still being found or read while others are sent already. */
export type Phase = 'working' | 'paused' | 'asking' | 'stopped' | 'finished';

export interface Progress {
  phase: Phase;
  /** Bytes of files that are taken in, as far as they are known. */
  totalBytes: number;
  /** Of these, what the server has: durable offsets, and what it knew. */
  doneBytes: number;
  /** What was sent from here since the beginning. */
  sentBytes: number;
  /** Everything that was given has been found, read and announced. */
  announced: boolean;
  /** Why nothing moves at the moment, and when it is tried again. */
  waitingFor: { slug: string; until: number } | null;
  /** Why it was stopped. */
  problem: Reason | null;
}

export interface Given {
  path: string;
  file: File;
}

export type GeometryForm = Partial<{
  pixel_spacing_mm: [number, number];
  slice_spacing_mm: number;
  orientation: 'axial' | 'coronal' | 'sagittal';
  modality: 'MR' | 'CT' | 'PT' | 'NM' | 'US' | 'XA' | 'OT';
  order: 'name' | 'name-reversed';
  rescale_slope: number;
  rescale_intercept: number;
}>;

/** What somebody gave at once, and where it goes. */
export interface Drop {
  id: string;
  ownerId: string;
  /** Null: the own inbox. */
  projectId: string | null;
  form: GeometryForm | null;
  createdAt: number;
}

export type ToWorker =
  | { type: 'begin'; drop: Drop }
  | { type: 'files'; files: Given[] }
  | { type: 'gathered' }
  /** Null leaves the pictures out. */
  | { type: 'form'; form: GeometryForm | null }
  | { type: 'pause' }
  | { type: 'go-on' }
  | { type: 'token'; token: string | null; reachable: boolean };

export type FromWorker =
  | { type: 'rows'; rows: Row[] }
  | { type: 'changes'; changes: Change[] }
  | { type: 'progress'; progress: Progress }
  | { type: 'studies'; studies: StudyOutcome[] }
  | { type: 'pictures'; count: number }
  /** `stale` is a token that the server no longer takes. */
  | { type: 'token-wanted'; stale: string | null };

export type UploadView = components['schemas']['Upload'];
export type Manifest = components['schemas']['Manifest'];
export type ManifestFileState = components['schemas']['ManifestFileState'];
