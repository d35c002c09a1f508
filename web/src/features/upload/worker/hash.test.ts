import { expect, it } from 'vitest';
import { fingerprintsWith, hashOf, open } from './hash';

/** The test vectors of BLAKE3: bytes that count up to 250 and begin again. */
function counting(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let n = 0; n < length; n++) bytes[n] = n % 251;
  return bytes;
}
const file = (bytes: Uint8Array<ArrayBuffer>) => new File([bytes], 'a');

it('is BLAKE3, of a file that is read at once', async () => {
  expect(await hashOf(file(counting(0)), counting(0))).toBe(
    'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
  );
  const small = file(counting(1025));
  expect(await hashOf(small, (await open(small)).whole)).toBe(
    'd00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444',
  );
});

it('is the same of a file that is read in pieces', async () => {
  const bytes = counting((8 << 20) + 5);
  const large = file(bytes);
  const opened = await open(large);
  expect(opened.whole).toBeNull();
  expect(await hashOf(large, null)).toBe(await hashOf(large, bytes));
});

it('recognises a file by its way, size and time, and tells nothing without the salt', async () => {
  const [one, other] = [await fingerprintsWith('salt'), await fingerprintsWith('another')];
  expect(one('a/1.dcm', 10, 5)).toBe(one('a/1.dcm', 10, 5));
  const different = [
    one('a/2.dcm', 10, 5),
    one('a/1.dcm', 11, 5),
    one('a/1.dcm', 10, 6),
    other('a/1.dcm', 10, 5),
  ];
  expect(new Set([one('a/1.dcm', 10, 5), ...different]).size).toBe(5);
});
