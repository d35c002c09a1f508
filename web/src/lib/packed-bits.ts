/** Bits packed eight to a byte, lowest first (NumPy packbits, bitorder="little"). Pure. */

/** Calls `visit` with the offset, from `start`, of each set bit among `count` bits that begin at bit `start`. */
export function forEachSetBit(
  bits: Uint8Array,
  start: number,
  count: number,
  visit: (offset: number) => void,
): void {
  const end = start + count;
  let position = start;
  while (position < end) {
    const byte = bits[position >> 3] ?? 0;
    if (byte === 0) {
      position = ((position >> 3) + 1) << 3;
      continue;
    }
    if (byte & (1 << (position & 7))) visit(position - start);
    position += 1;
  }
}
