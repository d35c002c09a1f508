import { expect, it } from 'vitest';
import { LONGEST_PAUSE_MS, passes, pauseMs } from './backoff';

it('waits longer with each failure, up to a limit, and never as told by chance alone', () => {
  expect([1, 2, 3, 20].map((failures) => pauseMs(failures, 0))).toEqual([500, 1000, 2000, LONGEST_PAUSE_MS]);
  expect(pauseMs(3, 1)).toBe(1000);
  expect(pauseMs(1, 1, 5)).toBe(5000);
});

it('tries again what passes by itself, and nothing else', () => {
  expect([408, 423, 429, 500, 503, 507].every((status) => passes(status, {}))).toBe(true);
  expect([400, 401, 403, 404, 409, 410, 415, 422].some((status) => passes(status, {}))).toBe(false);
  expect(passes(413, { quota: 'open_uploads' })).toBe(true);
  expect(passes(413, { quota: 'stored_bytes' })).toBe(false);
  expect(passes(413, {})).toBe(false);
});
