/** How fast it goes and how long it will take, from the bytes that the server has acknowledged. */

/** Long enough to even out chunks, short enough to follow a network that changes. */
const WINDOW_MS = 15_000;
const LEAST_MS = 1_000;

export class Rate {
  private samples: { at: number; bytes: number }[] = [];

  /** `bytes` counts from the beginning. */
  add(at: number, bytes: number): void {
    this.samples.push({ at, bytes });
    const old = this.samples.findIndex((one) => at - one.at <= WINDOW_MS);
    if (old > 1) this.samples.splice(0, old - 1);
  }

  /** After a pause the time before it says nothing. */
  reset(): void {
    this.samples = [];
  }

  /** Null until it can be told. */
  bytesPerSecond(now: number): number | null {
    const first = this.samples[0];
    const last = this.samples[this.samples.length - 1];
    if (first === undefined || last === undefined || now - first.at < LEAST_MS) return null;
    return ((last.bytes - first.bytes) * 1000) / (now - first.at);
  }

  secondsLeft(now: number, bytes: number): number | null {
    const rate = this.bytesPerSecond(now);
    return rate === null || rate <= 0 ? null : bytes / rate;
  }
}

/** What goes into the next chunk: about two seconds' worth, so that progress moves and little is sent twice. */
const CHUNK_S = 2;
export const LEAST_CHUNK_BYTES = 1 << 20;
export const MOST_CHUNK_BYTES = 32 << 20;
export const FIRST_CHUNK_BYTES = 4 << 20;

export function nextChunkBytes(lastBytes: number, tookMs: number): number {
  const wanted = (lastBytes * CHUNK_S * 1000) / Math.max(tookMs, 1);
  return Math.round(Math.min(MOST_CHUNK_BYTES, Math.max(LEAST_CHUNK_BYTES, wanted)));
}
