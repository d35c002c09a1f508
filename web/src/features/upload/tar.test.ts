import { expect, it } from 'vitest';
import { type Member, tarOf } from './tar';

const MEMBERS = [
  { path: 'a/1.dcm', content: new Blob(['one']) },
  { path: '환자 김/영상.dcm', content: new Blob([new Uint8Array(512).fill(7)]) },
  { path: `${'long/'.repeat(40)}2.dcm`, content: new Blob([new Uint8Array(1025).fill(8)]) },
  { path: 'empty', content: new Blob([]) },
];

/** Reads as POSIX says, and believes nothing that it can check. */
async function read(members: Member[]): Promise<[string, Uint8Array][]> {
  const bytes = new Uint8Array(await tarOf(members).arrayBuffer());
  expect(bytes.length % 512).toBe(0);
  const text = (from: number, length: number) => new TextDecoder().decode(bytes.slice(from, from + length));
  const found: [string, Uint8Array][] = [];
  let told: string | null = null;
  let at = 0;
  while (bytes[at] !== 0) {
    const block = bytes.slice(at, at + 512);
    const unsummed = block.map((byte, n) => (n >= 148 && n < 156 ? 0x20 : byte));
    expect(Number.parseInt(text(at + 148, 6), 8)).toBe(unsummed.reduce((sum, byte) => sum + byte, 0));
    expect(text(at + 257, 8)).toBe('ustar\x0000');
    const size = Number.parseInt(text(at + 124, 11), 8);
    const content = bytes.slice(at + 512, at + 512 + size);
    if (text(at + 156, 1) === 'x') {
      const record = /^(\d+) path=([^\n]*)\n$/.exec(new TextDecoder().decode(content));
      expect(Number(record?.[1])).toBe(size);
      told = record?.[2] ?? null;
    } else {
      found.push([told ?? text(at, 100).replace(/\0+$/, ''), content]);
      told = null;
    }
    at += 512 + Math.ceil(size / 512) * 512;
  }
  expect(bytes.length - at).toBe(1024);
  return found;
}

it('holds every file under its name, however long and in whatever script', async () => {
  const expected = await Promise.all(
    MEMBERS.map(async ({ path, content }) => [path, new Uint8Array(await content.arrayBuffer())]),
  );
  expect(await read(MEMBERS)).toEqual(expected);
});

it('has the same bytes each time, so that a pack goes on at an offset', async () => {
  const bytes = async () => new Uint8Array(await tarOf(MEMBERS).arrayBuffer());
  expect(await bytes()).toEqual(await bytes());
});

it('counts the length of a name into its own record, also where that adds a digit', async () => {
  for (let length = 80; length < 110; length++) {
    const path = `é${'x'.repeat(length)}`;
    expect((await read([{ path, content: new Blob([]) }]))[0]?.[0]).toBe(path);
  }
});
