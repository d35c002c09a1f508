/**
 * What one person does with one study: the chosen tool and segment, the shapes and strokes made. The one place where
 * something becomes an operation of the outbox and a step of the history.
 */
import type { QueryClient } from '@tanstack/react-query';
import type { Annotation, NewAnnotation, Patch } from '../../api/annotations';
import type { Segmentation } from '../../api/client';
import { fetchMasks } from '../../api/masks';
import { Store } from '../../lib/store';
import { newUuid } from '../../lib/uuid';
import type { ToolName } from './actions';
import { History } from './history';
import { MaskSession, type ShownSegment } from './mask-session';
import { MaskVolume, type SliceChange, withChange } from './mask-volume';
import { type Operation, type ShownAnnotation, withOperations } from './operations';
import type { Outbox } from './outbox';
import type { Result } from './outbox-send';

export interface Me {
  id: string;
  username: string;
}

export interface ReadingState {
  tool: ToolName;
  selected: string | null;
  label: NewAnnotation['label'];
  /** In pixels of the image, along a row. */
  brushRadius: number;
  /** Modality units that the threshold brush marks. */
  threshold: { lower: number; upper: number } | null;
  active: { segmentationId: string; segmentNumber: number } | null;
  opacity: number;
  showsShapes: boolean;
  showsTexts: boolean;
  playing: boolean;
  /** Which list stands beside the image. */
  panel: 'segmentations' | 'annotations';
}

export class Reading {
  readonly history = new History();
  readonly sessions = new Store<ReadonlyMap<string, MaskSession>>(new Map());
  readonly state = new Store<ReadingState>({
    tool: 'window',
    selected: null,
    label: null,
    brushRadius: 4,
    threshold: null,
    active: null,
    opacity: 0.3,
    showsShapes: true,
    showsTexts: true,
    playing: false,
    panel: 'segmentations',
  });

  constructor(
    readonly studyUid: string,
    readonly me: Me,
    readonly outbox: Outbox,
    private readonly cache: QueryClient,
  ) {}

  get annotationsKey(): readonly unknown[] {
    return ['annotations', this.studyUid];
  }

  /** What a save made, put where the page reads it. */
  took(operation: Operation, result: Result): void {
    if (operation.studyUid !== this.studyUid) return;
    if ('segmentation' in result) {
      this.sessions.get().get(result.object)?.saved(result.segmentation);
      this.putSegmentation(result.segmentation);
      // Sent again after a lost answer, and somebody saved in between: theirs is not in what is open here.
      const followed = operation.kind === 'masks.save' && result.version > operation.base + 1;
      if (followed) void this.reopenMasks(result.segmentation);
      return;
    }
    this.cache.setQueryData<Annotation[]>(this.annotationsKey, (list) => {
      const others = (list ?? []).filter((one) => one.id !== result.object);
      return 'annotation' in result ? [result.annotation, ...others] : others;
    });
    if (this.state.get().selected === operation.object) this.state.update({ selected: result.object });
  }

  putSegmentation(segmentation: Segmentation): void {
    this.cache.setQueryData<{ items: Segmentation[] }>(
      ['segmentations', segmentation.series_instance_uid],
      (page) =>
        page && {
          ...page,
          items: page.items.some((one) => one.id === segmentation.id)
            ? page.items.map((one) => (one.id === segmentation.id ? segmentation : one))
            : [segmentation, ...page.items],
        },
    );
  }

  // -- shapes --------------------------------------------------------------------------------------------------------

  annotations(): ShownAnnotation[] {
    const stored = this.cache.getQueryData<Annotation[]>(this.annotationsKey) ?? [];
    return withOperations(stored, this.ownLog(), this.me.username);
  }

  find(object: string): ShownAnnotation | undefined {
    const name = this.outbox.nameOf(object);
    return this.annotations().find((one) => one.id === name);
  }

  create(body: NewAnnotation): void {
    const object = newUuid();
    this.outbox.add(this.studyUid, object, { kind: 'annotation.create', body });
    // An arrow is drawn to say something: its text is asked for at once.
    this.state.update({ selected: object, ...(body.kind === 'arrow' && { panel: 'annotations' as const }) });
    let taken: ShownAnnotation | undefined;
    this.history.push({
      undo: () => {
        taken = this.takeAway(object);
      },
      redo: () => taken && this.bringBack(taken, body),
    });
  }

  edit(object: string, patch: Patch): void {
    const known = this.find(object);
    if (known === undefined) return;
    const before: Patch = {};
    if (patch.geometry !== undefined) before.geometry = known.geometry;
    if (patch.label !== undefined) before.label = known.label;
    if (patch.description !== undefined) before.description = known.description;
    this.patch(object, patch);
    this.history.push({ undo: () => this.patch(object, before), redo: () => this.patch(object, patch) });
  }

  remove(object: string): void {
    const taken = this.takeAway(object);
    if (taken === undefined) return;
    this.history.push({
      undo: () => this.bringBack(taken, bodyOf(taken)),
      redo: () => this.takeAway(object),
    });
  }

  private patch(object: string, patch: Patch): void {
    const known = this.find(object);
    if (known !== undefined)
      this.outbox.add(this.studyUid, object, { kind: 'annotation.edit', base: known.version, patch });
  }

  private takeAway(object: string): ShownAnnotation | undefined {
    const known = this.find(object);
    if (known === undefined) return undefined;
    this.outbox.add(this.studyUid, known.id, { kind: 'annotation.delete', base: known.version });
    if (this.state.get().selected === known.id) this.state.update({ selected: null });
    return known;
  }

  /** A deleted annotation is restored; one that never left this browser is made again. */
  private bringBack(taken: ShownAnnotation, body: NewAnnotation): void {
    const version = this.outbox.versionOf(taken.id) ?? taken.version;
    if (version > 0) this.outbox.add(this.studyUid, taken.id, { kind: 'annotation.restore', version });
    else this.outbox.add(this.studyUid, taken.id, { kind: 'annotation.create', body });
  }

  // -- masks ---------------------------------------------------------------------------------------------------------

  /** Opens the masks, with strokes upon them that are not saved yet. */
  async openMasks(segmentation: Segmentation): Promise<MaskSession> {
    await this.outbox.ready();
    const known = this.sessions.get().get(segmentation.id);
    if (known !== undefined) return known;
    const pending = this.pendingMasks(segmentation.id);
    const base = pending[0]?.base ?? segmentation.version;
    const session = new MaskSession(
      segmentation,
      new MaskVolume(await fetchMasks(segmentation.id, base)),
      base,
    );
    for (const one of pending) {
      for (const slice of one.slices)
        session.volume.put(slice.segmentNumber, slice.slice, slice.bits.slice());
      if (one.describe !== null) this.describeLocally(session, one.describe);
    }
    this.sessions.set(new Map(this.sessions.get()).set(segmentation.id, session));
    return session;
  }

  closeMasks(segmentationId: string): void {
    const rest = new Map(this.sessions.get());
    rest.delete(segmentationId);
    this.sessions.set(rest);
  }

  /** Reads them anew, after somebody else saved or a version was restored. */
  async reopenMasks(segmentation: Segmentation): Promise<void> {
    const shown = this.sessions.get().get(segmentation.id)?.state.get().segments ?? [];
    this.closeMasks(segmentation.id);
    const session = await this.openMasks(segmentation);
    for (const { segmentNumber, visible, locked } of shown)
      session.change(segmentNumber, { visible, locked });
  }

  pendingMasks(segmentationId: string) {
    return this.ownLog().filter(
      (one): one is Operation & { kind: 'masks.save' } =>
        one.kind === 'masks.save' && one.object === segmentationId,
    );
  }

  painted(session: MaskSession, changes: readonly SliceChange[]): void {
    const put = (side: 'before' | 'after') => {
      // A reopened segmentation has a new session: the step is done upon what is open.
      const now = this.sessions.get().get(session.id) ?? session;
      const other = side === 'before' ? 'after' : 'before';
      const slices = changes.map((one) => ({
        segmentNumber: one.segmentNumber,
        slice: one.slice,
        bits: withChange(now.volume.slice(one.segmentNumber, one.slice), one[other], one[side]),
      }));
      for (const one of slices) now.put(one.segmentNumber, one.slice, one.bits);
      this.saveMasks(now, slices, null);
    };
    put('after');
    this.history.push({ undo: () => put('before'), redo: () => put('after') });
  }

  /** Other names, colours or segments. */
  describe(session: MaskSession, segments: readonly ShownSegment[]): void {
    const before = session.state.get().segments;
    const put = (next: readonly ShownSegment[]) => {
      session.state.update({ segments: next });
      this.saveMasks(session, [], session.describe(next));
    };
    put(segments);
    this.history.push({ undo: () => put(before), redo: () => put(segments) });
  }

  saveMasks(
    session: MaskSession,
    slices: { segmentNumber: number; slice: number; bits: Uint8Array }[],
    describe: ReturnType<MaskSession['describe']> | null,
  ): void {
    const [k, j, i] = session.volume.shapeKji;
    this.outbox.add(this.studyUid, session.id, {
      kind: 'masks.save',
      base: session.state.get().version,
      shapeKji: [k, j, i],
      slices,
      describe,
    });
  }

  private describeLocally(session: MaskSession, described: ReturnType<MaskSession['describe']>): void {
    const known = new Map(session.state.get().segments.map((one) => [one.segmentNumber, one]));
    session.state.update({
      segments: described.map(({ segment_number: segmentNumber, label, color }) => ({
        meaning: label,
        volumeMm3: 0,
        voxels: 0,
        visible: true,
        locked: false,
        ...known.get(segmentNumber),
        segmentNumber,
        label,
        color: color ?? '#e6194b',
      })),
    });
  }

  private ownLog(): Operation[] {
    return this.outbox.state.get().log.filter((one) => one.studyUid === this.studyUid);
  }
}

function bodyOf(taken: ShownAnnotation): NewAnnotation {
  return {
    project_id: taken.project_id,
    study_instance_uid: taken.study_instance_uid,
    series_instance_uid: taken.series_instance_uid,
    sop_instance_uid: taken.sop_instance_uid,
    frame_number: taken.frame_number,
    kind: taken.kind,
    geometry: taken.geometry,
    label: taken.label,
    description: taken.description,
    tool: taken.tool,
    model: taken.model,
    why: '',
  };
}
