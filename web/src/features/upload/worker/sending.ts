/**
 * One drop from its files to the end of each: read and hashed, announced in manifests, what the server lacks sent in
 * parcels - several at once, while the next files are read - and followed until it is taken in.
 */
import type { RequestFailed } from '../../../api/failure';
import type { Memory } from '../memory';
import type { Drop, FromWorker, GeometryForm, Given, Manifest, UploadView } from '../messages';
import { reasonOfProblem } from '../problem';
import { tarOf } from '../tar';
import { Channel } from './channel';
import type { Entry } from './entry';
import { Gate } from './gate';
import { fingerprintsWith } from './hash';
import { Intake, unreadable } from './intake';
import { MANIFESTS, ManifestWork, type WorkParcel } from './manifest-work';
import { News } from './news';
import { Report } from './report';
import { type Lend, refusalOf, Server } from './server';
import { create, offsetOf, send, UPLOADS } from './tus';

/** Browsers open six connections to one server over HTTP/1.1: these, the stream of events, and two for the page. */
const SENDERS = 3;
/** Parcels that are ready before reading waits for sending: enough that sending never waits for reading. */
const MOST_AHEAD = 8;

export class Sending {
  readonly given = new Channel<Given>();
  private readonly gate = new Gate();
  private readonly report: Report;
  private readonly server: Server;
  private readonly news: News;
  private readonly parcels = new Channel<WorkParcel>();
  private readonly known = new Map<string, Entry>();
  private recalled: ManifestWork[] = [];
  private intake: Intake | null = null;
  private unfinished = 0;
  private allAnnounced = false;
  private answerForm: (form: GeometryForm | null) => void = () => undefined;
  private held: (() => void)[] = [];

  constructor(
    private readonly drop: Drop,
    private readonly memory: Memory | null,
    private readonly say: (message: FromWorker) => void,
    lend: Lend,
  ) {
    this.report = new Report(say);
    this.server = new Server(
      this.gate,
      lend,
      (waiting) => this.report.waiting(waiting),
      (failure) => this.hold(failure),
    );
    this.news = new News(this.server);
  }

  async run(): Promise<void> {
    const kept = await this.memory?.drop(this.drop.id);
    const intake = new Intake({
      given: this.given,
      report: this.report,
      fingerprint: await fingerprintsWith(kept?.salt ?? this.drop.id),
      form: this.drop.form,
      recall: (entry) => this.recall(entry),
      announce: (entries) => this.announce(entries),
      askForm: (pictures) => this.askForm(pictures),
    });
    this.intake = intake;
    await this.recallManifests(intake);
    await Promise.all([this.announceAll(intake), ...Array.from({ length: SENDERS }, () => this.sender())]);
    this.news.close();
    // What was announced and not given again may still come.
    const complete = [...this.known.values()].every((entry) => entry.state !== 'lost');
    if (complete) await this.memory?.forget(this.drop.id);
    this.report.update({ phase: 'finished', waitingFor: null });
  }

  pause(): void {
    this.gate.close();
    this.report.update({ phase: 'paused' });
  }

  goOn(): void {
    for (const release of this.held.splice(0)) release();
    this.gate.open();
    this.report.update({ phase: 'working', problem: null });
  }

  takeForm(form: GeometryForm | null): void {
    this.answerForm(form);
    this.report.update({ phase: 'working' });
  }

  private async announceAll(intake: Intake): Promise<void> {
    await intake.readAll();
    for (const work of this.recalled) await this.takeUp(work);
    await intake.announceSets();
    this.allAnnounced = true;
    this.report.update({ announced: true });
    this.closeWhenDone();
  }

  // -- an earlier visit ----------------------------------------------------------------------------------------------

  private async recallManifests(intake: Intake): Promise<void> {
    for (const kept of (await this.memory?.manifests(this.drop.id)) ?? []) {
      const entries = kept.items.map(({ fingerprint, way, form }) => {
        const entry: Entry = { ...intake.entryOf('', null), fingerprint, way, form };
        this.known.set(fingerprint, entry);
        return entry;
      });
      this.recalled.push(new ManifestWork(this.server, this.report, this.memory, kept, entries));
    }
  }

  private recall(given: Entry): boolean {
    const entry = this.known.get(given.fingerprint);
    if (entry === undefined || entry.file !== null) return false;
    entry.file = given.file;
    entry.path = given.path;
    entry.size = given.size;
    this.intake?.addRow(entry);
    return true;
  }

  /** Goes on with a manifest of an earlier visit, now that everything is given. */
  private async takeUp(work: ManifestWork): Promise<void> {
    const files = await work.files();
    for (const [position, entry] of work.entries.entries()) {
      if (entry.index >= 0) continue;
      entry.path = files[position]?.path ?? '';
      this.intake?.addRow(entry);
    }
    let missing = await work.refresh(files);
    for (const { uploadId, items, own } of [...work.openParcels]) {
      const entries = items.flatMap((position) => work.entries[position] ?? []);
      const parcel: WorkParcel = { work, uploadId, items: entries, own, form: null };
      const upload = await this.uploadOf(uploadId);
      if (upload?.state === 'receiving' && entries.every((entry) => entry.file !== null))
        this.enqueue(parcel);
      else if (upload !== null && upload.state !== 'receiving') {
        this.unfinished += 1;
        void this.guarded(() => this.follow(parcel));
      } else {
        // Gone, or a pack that cannot be completed without the files that were not given.
        if (upload !== null) await this.server.request(`${UPLOADS}/${uploadId}`, { method: 'DELETE' });
        await work.ended(uploadId);
        continue;
      }
      missing = missing.filter((entry) => !entries.includes(entry));
    }
    for (const entry of missing) this.report.set(entry, entry.file === null ? 'lost' : 'waiting');
    const given = missing.filter((entry) => entry.file !== null);
    for (const parcel of work.parcelsFor(given)) this.enqueue(parcel);
  }

  // -- announcing ----------------------------------------------------------------------------------------------------

  private async announce(entries: Entry[]): Promise<void> {
    await this.parcels.below(MOST_AHEAD);
    const body = JSON.stringify({
      project_id: this.drop.projectId,
      files: entries.map(({ path, size, hash }) => ({ path, size, blake3: hash })),
    });
    const headers = { 'Content-Type': 'application/json' };
    const manifest = await this.server.json<Manifest>(MANIFESTS, { method: 'POST', headers, body });
    const items = entries.map(({ fingerprint, way, form }) => ({ fingerprint, way, form }));
    const kept = { id: manifest.id, dropId: this.drop.id, items, parcels: [] };
    const work = new ManifestWork(this.server, this.report, this.memory, kept, entries);
    await work.keep();
    const paths = new Set(manifest.missing);
    const missing = entries.filter((entry) => paths.has(entry.path));
    for (const entry of missing) this.report.set(entry, 'waiting');
    for (const parcel of work.parcelsFor(missing)) this.enqueue(parcel);
    if (missing.length < entries.length) await work.refresh();
  }

  private async askForm(pictures: number): Promise<GeometryForm | null> {
    this.say({ type: 'pictures', count: pictures });
    const answer = new Promise<GeometryForm | null>((resolve) => {
      this.answerForm = resolve;
    });
    this.report.update({ phase: 'asking' });
    return answer;
  }

  // -- sending -------------------------------------------------------------------------------------------------------

  private enqueue(parcel: WorkParcel): void {
    this.unfinished += 1;
    this.parcels.push(parcel);
  }

  private async sender(): Promise<void> {
    for (;;) {
      const parcel = await this.parcels.take();
      if (parcel === undefined) return;
      try {
        const sent = await this.send(parcel);
        // Taking in one parcel while the next is sent.
        if (sent) void this.guarded(() => this.follow(parcel));
        else this.finished();
      } catch (error) {
        await this.leaveOutUnreadable(parcel, error);
      }
    }
  }

  /** False when nothing of it is to be waited for. */
  private async send(parcel: WorkParcel): Promise<boolean> {
    const { items, work, own } = parcel;
    const members = items.map(({ path, file }) => ({ path, content: file as File }));
    const content = own ? (members[0]?.content as Blob) : tarOf(members);
    const payload = items.reduce((sum, entry) => sum + entry.size, 0);
    for (const entry of items) this.report.set(entry, 'sending');
    let offset = parcel.uploadId === null ? 0 : await offsetOf(this.server, parcel.uploadId);
    for (;;) {
      if (parcel.uploadId === null || offset === null) {
        await work.ended(parcel.uploadId);
        const id = await this.make(parcel, content.size);
        if (id === null) return false;
        await work.began(parcel, id);
        offset = 0;
      }
      let last = offset;
      this.report.sending(parcel, (offset / content.size) * payload, 0);
      const whole = await send(this.server, parcel.uploadId as string, content, offset, (reached) => {
        this.report.sending(parcel, (reached / content.size) * payload, Math.max(0, reached - last));
        last = reached;
      });
      if (whole) break;
      offset = null;
    }
    for (const entry of items) this.report.set(entry, 'sent');
    this.report.sentWhole(parcel);
    return true;
  }

  /** Null when the server refuses it for what it is. */
  private async make(parcel: WorkParcel, length: number): Promise<string | null> {
    const { items, work, own, form } = parcel;
    const path = items[0]?.path ?? '';
    const note = {
      manifestId: work.id,
      filename: own ? path.slice(path.lastIndexOf('/') + 1).slice(-255) : packName(items.length),
      relativePath: own ? path : null,
      form,
    };
    for (;;) {
      const made = await create(this.server, length, note);
      if (typeof made === 'string') return made;
      const failure = await refusalOf(made);
      if (failure.slug === 'too-large' || failure.slug === 'bad-request') {
        for (const entry of items) this.report.set(entry, 'refused', reasonOfProblem(failure.problem));
        return null;
      }
      await this.hold(failure);
    }
  }

  /** Until the server has taken the parcel in, and with what outcome. */
  private async follow(parcel: WorkParcel): Promise<void> {
    const id = parcel.uploadId as string;
    let upload = await this.uploadOf(id);
    while (upload !== null && upload.state !== 'stored' && upload.state !== 'failed') {
      const state = upload.state === 'ingesting' ? 'ingesting' : 'verifying';
      for (const entry of parcel.items) this.report.set(entry, state);
      await this.news.of(id);
      upload = await this.uploadOf(id);
    }
    for (const again of await parcel.work.afterUpload(parcel, upload)) this.enqueue(again);
    this.finished();
  }

  private async uploadOf(id: string): Promise<UploadView | null> {
    for (;;) {
      const response = await this.server.request(`${UPLOADS}/${id}`);
      if (response.ok) return response.json();
      if (response.status === 404 || response.status === 410) return null;
      await this.hold(await refusalOf(response));
    }
  }

  /** A file of the parcel cannot be read any more: the others go without it. */
  private async leaveOutUnreadable(parcel: WorkParcel, error: unknown): Promise<void> {
    const reason = unreadable(error);
    const left: Entry[] = [];
    for (const entry of parcel.items) {
      const readable = await (entry.file as File)
        .slice(-1)
        .arrayBuffer()
        .then(
          () => true,
          () => false,
        );
      if (readable) left.push(entry);
      else this.report.set(entry, 'refused', reason);
    }
    this.report.sentWhole(parcel);
    if (parcel.uploadId !== null)
      await this.server.request(`${UPLOADS}/${parcel.uploadId}`, { method: 'DELETE' });
    await parcel.work.ended(parcel.uploadId);
    for (const again of parcel.work.parcelsFor(left)) this.enqueue(again);
    this.finished();
  }

  private finished(): void {
    this.unfinished -= 1;
    this.closeWhenDone();
  }

  private closeWhenDone(): void {
    if (this.allAnnounced && this.unfinished === 0) this.parcels.close();
  }

  /** What runs beside the rest: a fault of ours ends the whole worker, visibly. */
  private async guarded(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      reportError(error);
    }
  }

  /** Stops everything until the person goes on. */
  private async hold(failure: RequestFailed): Promise<void> {
    this.gate.close();
    this.report.update({ phase: 'stopped', problem: { slug: failure.slug, text: failure.message } });
    await new Promise<void>((resolve) => this.held.push(resolve));
  }
}

const packName = (files: number) => `pack of ${files} files`;
