/**
 * BLAKE3 in WebAssembly: the archive names its files by it, so the server knows what it has however that came. The
 * browser's own SHA-256 would neither do that, nor hash a file larger than memory, nor exist at all over plain HTTP.
 */
import { createBLAKE3, type IHasher } from 'hash-wasm';
import { HEAD_BYTES } from '../file-kind';

/** Read at once; smaller files are read a single time, for what they are and for their hash. */
const PIECE_BYTES = 8 << 20;

const idle: IHasher[] = [];

export interface Opened {
  head: Uint8Array;
  /** All of it, when it is small. */
  whole: Uint8Array | null;
}

export async function open(file: File): Promise<Opened> {
  if (file.size <= PIECE_BYTES) {
    const whole = await bytesOf(file);
    return { head: whole.subarray(0, HEAD_BYTES), whole };
  }
  return { head: await bytesOf(file.slice(0, HEAD_BYTES)), whole: null };
}

export async function hashOf(file: File, whole: Uint8Array | null): Promise<string> {
  const hasher = (idle.pop() ?? (await createBLAKE3())).init();
  try {
    if (whole !== null) return hasher.update(whole).digest('hex');
    for (let at = 0; at < file.size; at += PIECE_BYTES)
      hasher.update(await bytesOf(file.slice(at, at + PIECE_BYTES)));
    return hasher.digest('hex');
  } finally {
    idle.push(hasher);
  }
}

/** Recognises a file without telling its name: `salt` belongs to one drop. */
export type Fingerprint = (path: string, size: number, modified: number) => string;

export async function fingerprintsWith(salt: string): Promise<Fingerprint> {
  const hasher = await createBLAKE3(128);
  return (path, size, modified) =>
    hasher.init().update([salt, path, size, modified].join('\0')).digest('hex');
}

async function bytesOf(blob: Blob): Promise<Uint8Array> {
  return new Uint8Array(await blob.arrayBuffer());
}
