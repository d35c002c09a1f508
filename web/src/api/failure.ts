/** What a refused request says: the problem+json of the server in a few fields (RFC 9457). */
export class RequestFailed extends Error {
  readonly status: number;
  readonly slug: string;
  /** The whole problem, with the members that belong to its slug. */
  readonly problem: Record<string, unknown>;

  constructor(status: number, slug: string, message: string, problem: Record<string, unknown> = {}) {
    super(message);
    this.status = status;
    this.slug = slug;
    this.problem = problem;
  }
}

interface Problem {
  type?: string;
  title?: string;
  detail?: string;
}

/** What a problem object says, in its most telling field. */
export function textOfProblem(problem: Record<string, unknown>): string {
  const text = problem.detail ?? problem.title;
  return typeof text === 'string' ? text : '';
}

export function failureOf(status: number, body: unknown): RequestFailed {
  const problem = (typeof body === 'object' && body !== null ? body : {}) as Problem;
  const slug = problem.type?.split(/[/:#]/).pop() ?? '';
  return new RequestFailed(status, slug, problem.detail ?? problem.title ?? `HTTP ${status}`, { ...problem });
}

export async function failureOfResponse(response: Response): Promise<RequestFailed> {
  const isJson = response.headers.get('content-type')?.includes('json') ?? false;
  return failureOf(response.status, isJson ? await response.json() : null);
}
