/** How long to wait before the next try, and what is worth one. */

const FIRST_PAUSE_MS = 500;
export const LONGEST_PAUSE_MS = 30_000;

/** Doubles with each failure; up to half of it is left to chance, so that clients of one server do not return at once. */
export function pauseMs(failures: number, chance: number, askedFor_s = 0): number {
  const grown = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (failures - 1));
  return Math.max(grown * (1 - chance / 2), askedFor_s * 1000);
}

/** What passes by itself: the server restarts, is busy or full, or another connection of ours still writes. */
export function passes(status: number, problem: Record<string, unknown>): boolean {
  if (status === 413) return problem.quota === 'in_flight_bytes' || problem.quota === 'open_uploads';
  return status === 408 || status === 423 || status === 429 || status >= 500;
}
