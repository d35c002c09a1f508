import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { tarOf } from './tar';

const MEMBERS = [
  { path: 'a/1.dcm', content: new Blob(['one']) },
  { path: '환자 김/영상.dcm', content: new Blob([new Uint8Array(512).fill(7)]) },
  { path: `${'long/'.repeat(40)}2.dcm`, content: new Blob([new Uint8Array(1025).fill(8)]) },
  { path: 'empty', content: new Blob([]) },
];

it('is read by the tar of the system, name by name and byte by byte', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'tar-'));
  writeFileSync(join(folder, 'pack.tar'), new Uint8Array(await tarOf(MEMBERS).arrayBuffer()));
  // GNU tar would escape the names; others do not know the wish and do not mind it.
  const env = { ...process.env, TAR_OPTIONS: '--quoting-style=literal' };
  const tar = (...args: string[]) => execFileSync('tar', [...args, '-f', join(folder, 'pack.tar')], { env });
  const names = tar('-t').toString().trimEnd().split('\n');
  expect(names).toEqual(MEMBERS.map(({ path }) => path));
  for (const { path, content } of MEMBERS)
    expect(new Uint8Array(execFileSync('tar', ['-xOf', join(folder, 'pack.tar'), path], { env }))).toEqual(
      new Uint8Array(await content.arrayBuffer()),
    );
});

it('has the same bytes each time, so that a pack goes on at an offset', async () => {
  const bytes = async () => new Uint8Array(await tarOf(MEMBERS).arrayBuffer());
  expect(await bytes()).toEqual(await bytes());
});

it('counts the length of a name into its own record, also where a digit is added by it', async () => {
  for (let length = 80; length < 110; length++) {
    const path = `é${'x'.repeat(length)}`;
    const text = await tarOf([{ path, content: new Blob([]) }]).text();
    const record = text.slice(512, text.indexOf('\n', 512) + 1);
    expect(new TextEncoder().encode(record).length).toBe(Number.parseInt(record, 10));
    expect(record).toBe(`${Number.parseInt(record, 10)} path=${path}\n`);
  }
});
