/** Reads what was given: what each file is, whether it is known from an earlier visit, and its hash where it is sent. */
import { type FileKind, folderOf, kindOf, labelOf } from '../file-kind';
import type { GeometryForm, Given, Reason } from '../messages';
import { FIRST_MANIFEST_FILES, type Held, MANIFEST_BYTES, MANIFEST_FILES, setsOf, wayOf } from '../plan';
import type { Channel } from './channel';
import type { Entry } from './entry';
import { type Fingerprint, hashOf, open } from './hash';
import type { Report } from './report';

/** Files that are read at once: reading waits on the disk, hashing on the processor. */
const READERS = 6;

interface HeldEntry extends Held {
  entry: Entry;
}

export interface IntakeParts {
  given: Channel<Given>;
  report: Report;
  fingerprint: Fingerprint;
  form: GeometryForm | null;
  /** True when the file is one of an earlier visit, which has its row then. */
  recall: (entry: Entry) => boolean;
  announce: (entries: Entry[]) => Promise<void>;
  askForm: (pictures: number) => Promise<GeometryForm | null>;
}

export class Intake {
  private readonly paths = new Set<string>();
  private readonly held: HeldEntry[] = [];
  private batch: Entry[] = [];
  private batchBytes = 0;
  private announced = 0;
  rows = 0;

  constructor(private readonly parts: IntakeParts) {}

  /** Until all that was given is announced, but for sets: those come with `announceSets`. */
  async readAll(): Promise<void> {
    await Promise.all(Array.from({ length: READERS }, () => this.reader()));
    await this.close();
  }

  async announceSets(): Promise<void> {
    const { report } = this.parts;
    let found = setsOf(this.held, this.parts.form);
    if (found.formless.length > 0) {
      for (const { entry } of found.formless) report.set(entry, 'asked');
      const pictures = found.formless.filter((one) => one.kind === 'picture').length;
      const form = await this.parts.askForm(pictures);
      if (form !== null) found = setsOf(this.held, form);
      else
        for (const { entry } of found.formless)
          report.set(entry, 'skipped', { slug: 'no-geometry', text: '' });
    }
    for (const { entry, kind } of found.idle)
      report.set(entry, 'skipped', { slug: kind === 'form' ? 'form-alone' : 'data-alone', text: '' });
    for (const { items, form } of found.sets) {
      const entries: Entry[] = [];
      for (const { entry } of items) {
        entry.form = form;
        if (await this.hash(entry, null)) entries.push(entry);
      }
      if (entries.length > 0) await this.parts.announce(entries);
    }
  }

  private async reader(): Promise<void> {
    for (;;) {
      const given = await this.parts.given.take();
      if (given === undefined) return;
      const path = labelOf(given.path);
      if (path === '' || this.paths.has(path)) continue; // the same folder given twice at once
      this.paths.add(path);
      await this.read(this.entryOf(path, given.file));
    }
  }

  entryOf(path: string, file: File | null, size = file?.size ?? 0): Entry {
    return {
      index: -1,
      path,
      size,
      file,
      fingerprint: file === null ? '' : this.parts.fingerprint(path, size, file.lastModified),
      way: 'pack',
      form: null,
      hash: null,
      state: 'found',
      reason: null,
      tries: 0,
      work: null,
      counted: false,
    };
  }

  addRow(entry: Entry): void {
    entry.index = this.rows++;
    this.parts.report.add(entry);
  }

  private async read(entry: Entry): Promise<void> {
    const { report } = this.parts;
    if (this.parts.recall(entry)) return;
    this.addRow(entry);
    const file = entry.file as File;
    let kind: FileKind;
    let whole: Uint8Array | null;
    try {
      const opened = await open(file);
      kind = kindOf(opened.head, entry.path);
      whole = opened.whole;
    } catch (error) {
      report.set(entry, 'refused', unreadable(error));
      return;
    }
    if (kind === 'foreign' || kind === 'media') {
      // Found in a folder, nobody asked for it; named itself, somebody did.
      const named = folderOf(entry.path) === '' && kind === 'foreign';
      const slug = kind === 'media' ? 'media-directory' : 'unsupported-file';
      report.set(entry, named ? 'refused' : 'skipped', { slug, text: '' });
      return;
    }
    entry.way = wayOf(kind, entry.size);
    if (kind !== 'dicom' && kind !== 'alone') {
      const text = kind === 'form' ? new TextDecoder().decode(whole ?? new Uint8Array()) : null;
      this.held.push({ entry, path: entry.path, kind, text });
      return;
    }
    if (kind === 'alone' && this.parts.form !== null) entry.form = JSON.stringify(this.parts.form);
    if (await this.hash(entry, whole)) await this.collect(entry);
  }

  private async hash(entry: Entry, whole: Uint8Array | null): Promise<boolean> {
    this.parts.report.set(entry, 'reading');
    try {
      entry.hash = await hashOf(entry.file as File, whole);
      return true;
    } catch (error) {
      this.parts.report.set(entry, 'refused', unreadable(error));
      return false;
    }
  }

  private async collect(entry: Entry): Promise<void> {
    this.batch.push(entry);
    this.batchBytes += entry.size;
    const most = this.announced === 0 ? FIRST_MANIFEST_FILES : MANIFEST_FILES;
    if (this.batch.length >= most || this.batchBytes >= MANIFEST_BYTES) await this.close();
  }

  private async close(): Promise<void> {
    const entries = this.batch;
    if (entries.length === 0) return;
    this.batch = [];
    this.batchBytes = 0;
    this.announced += entries.length;
    await this.parts.announce(entries);
  }
}

/** The browser's refusal to read: gone, changed since it was chosen, or not allowed. Anything else is a fault of ours. */
export function unreadable(error: unknown): Reason {
  if (!(error instanceof DOMException)) throw error;
  return { slug: 'unreadable', text: error.name };
}
