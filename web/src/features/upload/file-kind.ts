/** What a file is by its first bytes, as far as it decides how it travels; what it holds, the server finds out. */

/** The tar magic ends at 262, NIfTI's at 348; headers of NRRD and MetaImage are text of some hundred bytes. */
export const HEAD_BYTES = 4096;

export type FileKind =
  | 'dicom'
  /** An archive or a volume in one file: an upload of its own. */
  | 'alone'
  /** These make sense with their neighbours only and travel with their whole folder. */
  | 'picture'
  | 'header'
  | 'data'
  | 'form'
  /** A medium's directory: describes the files beside it and holds no image. */
  | 'media'
  | 'foreign';

/** How the data of detached headers is called. */
const DATA_NAME = /\.(raw|zraw|raw\.gz|bin|dat|img)$/i;
const FORM_NAME = 'geometry.json';
const META_IMAGE = /^\s*(ObjectType|ObjectSubType|NDims|Comment|TransformType|ID|Name)\s*=/;
/** Media Storage Directory Storage (PS3.4 B.5). */
const MEDIA_DIRECTORY = '1.2.840.10008.1.3.10';
const PICTURES = ['\x89PNG\r\n\x1a\n', '\xff\xd8\xff', 'II*\0', 'MM\0*'];
const ARCHIVES = ['PK\x03\x04', 'PK\x05\x06', '\x1f\x8b', '\x28\xb5\x2f\xfd'];

export function kindOf(head: Uint8Array, path: string): FileKind {
  const name = path.slice(path.lastIndexOf('/') + 1);
  const text = latin1(head);
  if (text.startsWith('DICM', 128))
    return name.toUpperCase() === 'DICOMDIR' || text.slice(132, 560).includes(MEDIA_DIRECTORY)
      ? 'media'
      : 'dicom';
  if (DATA_NAME.test(name) && text.slice(344, 348) !== 'ni1\0') return 'data';
  if (ARCHIVES.some((magic) => text.startsWith(magic)) || text.startsWith('ustar', 257)) return 'alone';
  if (['n+1\0', 'ni1\0'].includes(text.slice(344, 348)) || ['n+2\0', 'ni2\0'].includes(text.slice(4, 8)))
    return 'alone';
  if (text.startsWith('NRRD000')) return /^data ?file\s*:/im.test(text) ? 'header' : 'alone';
  if (META_IMAGE.test(text)) return /^\s*ElementDataFile\s*=\s*LOCAL\s*$/im.test(text) ? 'alone' : 'header';
  if (PICTURES.some((magic) => text.startsWith(magic))) return 'picture';
  if (name.toLowerCase() === FORM_NAME) return 'form';
  // A DICOM stream without preamble begins with group 0002 or 0008, little endian.
  return text.startsWith('\x02\0') || text.startsWith('\x08\0') ? 'dicom' : 'foreign';
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes.subarray(0, HEAD_BYTES));
}

/**
 * The path as the server keeps names: text that can be shown, of bounded length. Both sides must agree, since members of
 * a pack are found by it.
 */
export function labelOf(path: string): string {
  const shown = path.replace(/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu, '').replace(/^\/+/, '');
  return shown.length <= MAX_PATH ? shown : shown.slice(-MAX_PATH);
}
/** UTF-16 units, at least as many as the server's characters. */
const MAX_PATH = 1024;

export function folderOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf('/')));
}
