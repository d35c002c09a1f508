/** What travels together: files of one manifest become parcels, each one upload. */
import { type FileKind, folderOf } from './file-kind';
import type { GeometryForm } from './messages';

/** DICOM files that share one upload: large enough to amortise its job, small enough to show progress and to go again. */
export const PACK_BYTES = 64 << 20;
export const PACK_FILES = 512;

/** Files of one manifest: its outcome is one page of the server's. The first is short, so that sending begins at once. */
export const MANIFEST_FILES = 1000;
export const FIRST_MANIFEST_FILES = 128;
export const MANIFEST_BYTES = 1 << 30;

/** pack: joins others. alone: an upload of its own. together: all of the folder's in one pack. */
export type Way = 'pack' | 'alone' | 'together';

export interface Item {
  path: string;
  size: number;
  way: Way;
  /** The form that goes with the upload, as JSON; of a pack of DICOM files none. */
  form: string | null;
}

export interface Parcel<T extends Item> {
  items: T[];
  /** One file as it is; else a tar of its items. */
  own: boolean;
  form: string | null;
}

export function wayOf(kind: FileKind, size: number): Way {
  if (kind === 'dicom') return size > PACK_BYTES ? 'alone' : 'pack';
  return kind === 'alone' ? 'alone' : 'together';
}

export function parcelsOf<T extends Item>(items: T[]): Parcel<T>[] {
  const parcels: Parcel<T>[] = [];
  const folders = new Map<string, T[]>();
  let pack: T[] = [];
  let packBytes = 0;
  const close = () => {
    if (pack.length > 0) parcels.push({ items: pack, own: false, form: null });
    pack = [];
    packBytes = 0;
  };
  for (const item of items) {
    if (item.way === 'alone') parcels.push({ items: [item], own: true, form: item.form });
    else if (item.way === 'together') {
      const folder = folderOf(item.path);
      folders.set(folder, [...(folders.get(folder) ?? []), item]);
    } else {
      if (packBytes + item.size > PACK_BYTES || pack.length >= PACK_FILES) close();
      pack.push(item);
      packBytes += item.size;
    }
  }
  close();
  for (const set of folders.values())
    parcels.push({ items: set, own: false, form: set.find((one) => one.form !== null)?.form ?? null });
  return parcels;
}

/** One file that waited for its folder to be complete. */
export interface Held {
  path: string;
  kind: 'picture' | 'header' | 'data' | 'form';
  /** Of a form, its text. */
  text: string | null;
}

export interface Sets<T extends Held> {
  /** To be sent, each with the form that goes along. */
  sets: { items: T[]; form: string | null }[];
  /** Pictures that nobody has told the geometry of, with what lies beside them. */
  formless: T[];
  /** Data without a header, forms without pictures. */
  idle: T[];
}

/**
 * Folders whose files are read together. A picture's geometry is told by the form of its folder, else of the nearest
 * folder above, else by `form`.
 */
export function setsOf<T extends Held>(held: T[], form: GeometryForm | null): Sets<T> {
  const forms = new Map(held.filter((one) => one.kind === 'form').map((one) => [folderOf(one.path), one]));
  const told = form === null ? null : JSON.stringify(form);
  const folders = new Map<string, T[]>();
  for (const one of held) {
    const folder = folderOf(one.path);
    const there = folders.get(folder);
    if (there) there.push(one);
    else folders.set(folder, [one]);
  }
  const found: Sets<T> = { sets: [], formless: [], idle: [] };
  for (const [folder, items] of folders) {
    const pictures = items.some((one) => one.kind === 'picture');
    if (!pictures && !items.some((one) => one.kind === 'header')) found.idle.push(...items);
    else if (!pictures || forms.has(folder)) found.sets.push({ items, form: told });
    else {
      const inherited = above(folder, forms)?.text ?? (saysGeometry(form) ? told : null);
      if (inherited === null) found.formless.push(...items);
      else found.sets.push({ items, form: inherited });
    }
  }
  return found;
}

export function saysGeometry(form: GeometryForm | null): boolean {
  return form?.pixel_spacing_mm !== undefined && form.slice_spacing_mm !== undefined;
}

function above<T>(folder: string, forms: Map<string, T>): T | undefined {
  for (let at = folder; at !== ''; at = folderOf(at)) {
    const found = forms.get(folderOf(at));
    if (found !== undefined) return found;
  }
  return undefined;
}
