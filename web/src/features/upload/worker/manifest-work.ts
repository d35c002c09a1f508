/** One manifest of the server's and the parcels that bring what it lacks. */

import type { KeptManifest, KeptParcel, Memory } from '../memory';
import type { ManifestFileState, Reason, UploadView } from '../messages';
import { type Parcel, parcelsOf } from '../plan';
import { reasonOfProblem } from '../problem';
import type { Entry } from './entry';
import { hashOf } from './hash';
import type { Report } from './report';
import type { Server } from './server';

export const MANIFESTS = '/api/v1/study-manifests';
/** A file that arrives damaged this often is damaged where it lies. */
const MAX_TRIES = 3;

export interface WorkParcel extends Parcel<Entry> {
  work: ManifestWork;
  /** Null until the upload is made. */
  uploadId: string | null;
}

export class ManifestWork {
  constructor(
    private readonly server: Server,
    private readonly report: Report,
    private readonly memory: Memory | null,
    private readonly kept: KeptManifest,
    /** In the order of the manifest. */
    readonly entries: Entry[],
  ) {
    for (const entry of entries) entry.work = this;
  }

  get id(): string {
    return this.kept.id;
  }

  get openParcels(): KeptParcel[] {
    return this.kept.parcels;
  }

  async keep(): Promise<void> {
    await this.memory?.keepManifest(this.kept);
  }

  async began(parcel: WorkParcel, uploadId: string): Promise<void> {
    parcel.uploadId = uploadId;
    const positions = new Map(this.entries.map((entry, position) => [entry, position]));
    const items = parcel.items.map((entry) => positions.get(entry) as number);
    this.kept.parcels.push({ uploadId, items, own: parcel.own });
    await this.keep();
  }

  async ended(uploadId: string | null): Promise<void> {
    this.kept.parcels = this.kept.parcels.filter((one) => one.uploadId !== uploadId);
    await this.keep();
  }

  parcelsFor(entries: Entry[]): WorkParcel[] {
    return parcelsOf(entries).map((parcel) => ({ ...parcel, work: this, uploadId: null }));
  }

  async files(): Promise<ManifestFileState[]> {
    const found: ManifestFileState[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const query = cursor ? `?cursor=${encodeURIComponent(cursor)}` : '';
      const page: { items: ManifestFileState[]; next: string | null } = await this.server.json(
        `${MANIFESTS}/${this.id}/files${query}`,
      );
      found.push(...page.items);
      cursor = page.next;
    }
    return found;
  }

  /** What the server says of the files; answers those that it still lacks. */
  async refresh(files?: ManifestFileState[]): Promise<Entry[]> {
    const missing: Entry[] = [];
    for (const [position, file] of (files ?? (await this.files())).entries()) {
      const entry = this.entries[position];
      if (entry === undefined) continue;
      if (file.state === 'missing') missing.push(entry);
      else this.settle(entry, file);
    }
    return missing;
  }

  /** After an upload's end: its files, and what of them has to go again. */
  async afterUpload(parcel: WorkParcel, upload: UploadView | null): Promise<WorkParcel[]> {
    if (upload !== null && !parcel.items.every((entry) => entry.way === 'pack')) {
      // One file may hold several studies, or become many images.
      for (const file of upload.files)
        if (file.study_instance_uid) this.report.study(file.study_instance_uid, file.state);
      for (const entry of parcel.items) entry.counted = true;
    }
    const missing = await this.refresh();
    const again = parcel.items.filter((entry) => missing.includes(entry));
    const left: Entry[] = [];
    for (const entry of again) {
      const refusal = upload === null ? null : await this.refusalOf(entry, upload);
      if (refusal === null) left.push(entry);
      else this.report.set(entry, 'refused', refusal);
    }
    for (const entry of left) this.report.set(entry, 'waiting');
    await this.ended(parcel.uploadId);
    return this.parcelsFor(left);
  }

  /** Null: it is worth another try. */
  private async refusalOf(entry: Entry, upload: UploadView): Promise<Reason | null> {
    entry.tries += 1;
    if (entry.hash !== null && entry.file !== null) {
      const changed = await hashOf(entry.file, null).then(
        (hash) => hash !== entry.hash,
        () => true,
      );
      if (changed) return { slug: 'changed', text: '' };
    }
    if (entry.tries < MAX_TRIES) return null;
    return upload.problem === null ? { slug: 'content-mismatch', text: '' } : reasonOfProblem(upload.problem);
  }

  private settle(entry: Entry, file: ManifestFileState): void {
    const state = file.state as Entry['state'];
    this.report.set(entry, state, file.problem === null ? null : reasonOfProblem(file.problem));
    if (file.study_instance_uid && !entry.counted) this.report.study(file.study_instance_uid, state);
    entry.counted = true;
  }
}
