/** A problem of the server's (RFC 9457) as the reason that a row shows. */
import type { Reason } from './messages';

export function reasonOfProblem(problem: Record<string, unknown>): Reason {
  const slug = typeof problem.type === 'string' ? (problem.type.split(/[/:#]/).pop() ?? '') : '';
  const text = problem.detail ?? problem.title;
  return { slug, text: typeof text === 'string' ? text : '' };
}
