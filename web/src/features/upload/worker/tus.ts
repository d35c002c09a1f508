/** One resumable upload (tus 1.0): made, then sent from the server's offset on, however often it breaks off. */
import { FIRST_CHUNK_BYTES, nextChunkBytes } from '../rate';
import { ComeAgain, refusalOf, type Server } from './server';

const VERSION = { 'Tus-Resumable': '1.0.0' };
export const UPLOADS = '/api/v1/uploads';

export interface UploadNote {
  manifestId: string;
  filename: string;
  /** Of one file as it is; a pack has none. */
  relativePath: string | null;
  form: string | null;
}

/** The new upload's id, or the server's refusal. */
export async function create(server: Server, length: number, note: UploadNote): Promise<string | Response> {
  const metadata = Object.entries({
    filename: note.filename,
    manifest_id: note.manifestId,
    ...(note.relativePath !== null && { relative_path: note.relativePath }),
    ...(note.form !== null && { geometry: note.form }),
  }).map(([key, value]) => `${key} ${base64(value)}`);
  const response = await server.request(UPLOADS, {
    method: 'POST',
    headers: { ...VERSION, 'Upload-Length': String(length), 'Upload-Metadata': metadata.join(',') },
  });
  if (!response.ok) return response;
  return response.headers.get('location')?.split('/').pop() as string;
}

/** Null when the server has no such upload any more. */
export async function offsetOf(server: Server, id: string): Promise<number | null> {
  for (;;) {
    const response = await server.request(`${UPLOADS}/${id}`, { method: 'HEAD', headers: VERSION });
    if (response.ok) return Number(response.headers.get('upload-offset'));
    if (response.status === 404 || response.status === 410) return null;
    await server.hold(await refusalOf(response));
  }
}

/**
 * Sends what the server has not got. False when the upload is gone: its bytes must be sent in a new one. Throws
 * NotReadableError (DOMException) when a file cannot be read any more.
 */
export async function send(
  server: Server,
  id: string,
  content: Blob,
  from: number,
  onOffset: (offset: number) => void,
): Promise<boolean> {
  let offset = from;
  let chunkBytes = FIRST_CHUNK_BYTES;
  let failures = 0;
  while (offset < content.size) {
    const chunk = content.slice(offset, offset + chunkBytes);
    const began = performance.now();
    const reached = await append(server, id, offset, chunk, ++failures);
    if (reached === null) return false;
    if (reached > offset) {
      failures = 0;
      chunkBytes = nextChunkBytes(reached - offset, performance.now() - began);
    }
    offset = reached;
    onOffset(offset);
  }
  return true;
}

/** The server's offset after one try. */
async function append(
  server: Server,
  id: string,
  offset: number,
  chunk: Blob,
  tries: number,
): Promise<number | null> {
  try {
    const response = await server.once(`${UPLOADS}/${id}`, {
      method: 'PATCH',
      headers: {
        ...VERSION,
        'Content-Type': 'application/offset+octet-stream',
        'Upload-Offset': String(offset),
      },
      body: chunk,
    });
    if (response.ok) return Number(response.headers.get('upload-offset'));
    if (response.status === 404 || response.status === 410) return null;
    // 409: a connection that broke, as it seemed, had brought more.
    if (response.status !== 409) await server.hold(await refusalOf(response));
  } catch (error) {
    if (!(error instanceof ComeAgain)) throw error;
    // To the browser a file that it cannot read and a network that is gone look alike.
    await chunk.slice(0, 1).arrayBuffer();
    await chunk.slice(-1).arrayBuffer();
    await server.pause(tries, error);
  }
  return offsetOf(server, id);
}

function base64(text: string): string {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
