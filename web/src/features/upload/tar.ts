/**
 * A tar archive (POSIX.1-2001 pax) made of files without reading them: the browser reads each when its bytes are sent. The
 * same files always give the same bytes, so that a pack that broke off goes on at its offset.
 */

const BLOCK = 512;

export interface Member {
  path: string;
  content: Blob;
}

export function tarOf(members: Member[]): Blob {
  const pieces: BlobPart[] = [];
  for (const { path, content } of members) {
    pieces.push(...headersOf(path, content.size), content, padding(content.size));
  }
  pieces.push(new Uint8Array(2 * BLOCK));
  return new Blob(pieces);
}

function headersOf(path: string, size: number): Uint8Array<ArrayBuffer>[] {
  const name = new TextEncoder().encode(path);
  if (name.length <= 100 && name.every((byte) => byte < 0x80)) return [header(name, size, '0')];
  const record = paxRecord('path', name);
  const label = new TextEncoder().encode('path');
  return [header(label, record.length, 'x'), record, padding(record.length), header(label, size, '0')];
}

/** "LENGTH key=value\n", where LENGTH counts itself. */
function paxRecord(key: string, value: Uint8Array): Uint8Array<ArrayBuffer> {
  const rest = key.length + value.length + 3;
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  const start = new TextEncoder().encode(`${length} ${key}=`);
  const record = new Uint8Array(length);
  record.set(start);
  record.set(value, start.length);
  record[length - 1] = 0x0a;
  return record;
}

/** Without owner and time: they are nobody's business, and nothing of them is kept. */
function header(name: Uint8Array, size: number, type: '0' | 'x'): Uint8Array<ArrayBuffer> {
  const block = new Uint8Array(BLOCK);
  const put = (text: string, at: number) => block.set(new TextEncoder().encode(text), at);
  block.set(name);
  put('0000644\0', 100);
  put('0000000\0', 108);
  put('0000000\0', 116);
  put(`${size.toString(8).padStart(11, '0')}\0`, 124);
  put('00000000000\0', 136);
  put('        ', 148);
  put(type, 156);
  put('ustar\0', 257);
  put('00', 263);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function padding(size: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}
