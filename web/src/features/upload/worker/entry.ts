/** One file on its way, as the worker follows it. */
import type { FileState, Reason } from '../messages';
import type { Item, Way } from '../plan';
import type { ManifestWork } from './manifest-work';

export interface Entry extends Item {
  /** Its row on the page. */
  index: number;
  /** Null: it was announced in an earlier visit and was not given again. */
  file: File | null;
  fingerprint: string;
  way: Way;
  hash: string | null;
  state: FileState;
  reason: Reason | null;
  /** How often it arrived damaged. */
  tries: number;
  work: ManifestWork | null;
  /** It has its place in the study report. */
  counted: boolean;
}
