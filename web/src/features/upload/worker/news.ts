/** Word of one's uploads as it comes (server-sent events), so that nobody asks every second how each of them does. */
import { ComeAgain, type Server } from './server';

/** How long is waited for word before the server is asked: with the stream open it only guards against a missed word. */
const WITH_STREAM_MS = 10_000;
const WITHOUT_STREAM_MS = 1_000;

export class News {
  private readonly waiting = new Map<string, Set<() => void>>();
  private stream: AbortController | null = null;
  private open = false;

  constructor(private readonly server: Server) {}

  /** Until something happened to the upload, or long enough has passed to ask. */
  async of(uploadId: string): Promise<void> {
    if (this.stream === null) void this.listen();
    await new Promise<void>((resolve) => {
      const there = this.waiting.get(uploadId) ?? new Set();
      this.waiting.set(uploadId, there);
      const done = () => {
        clearTimeout(timer);
        there.delete(done);
        if (there.size === 0) this.waiting.delete(uploadId);
        resolve();
      };
      const timer = setTimeout(done, this.open ? WITH_STREAM_MS : WITHOUT_STREAM_MS);
      there.add(done);
    });
  }

  close(): void {
    this.stream?.abort();
    this.stream = null;
  }

  /** One stream; when it breaks, asking takes its place until the next wait opens another. */
  private async listen(): Promise<void> {
    const stream = new AbortController();
    this.stream = stream;
    try {
      const headers = { Accept: 'text/event-stream' };
      const response = await this.server.once('/api/v1/events', { headers }, stream.signal);
      if (!response.ok || response.body === null) return;
      this.open = true;
      let text = '';
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        text += value;
        const whole = text.lastIndexOf('\n\n');
        if (whole < 0) continue;
        for (const id of objectsOf(text.slice(0, whole)))
          for (const wake of this.waiting.get(id) ?? []) wake();
        text = text.slice(whole + 2);
      }
    } catch (error) {
      // A stream that ends is no failure of the upload; whatever is wrong shows at the next request.
      if (!(error instanceof ComeAgain || error instanceof TypeError || error instanceof DOMException))
        throw error;
    } finally {
      this.open = false;
      if (this.stream === stream) this.stream = null;
    }
  }
}

/** Which uploads the messages are about. */
export function objectsOf(messages: string): Set<string> {
  const found = new Set<string>();
  for (const line of messages.split('\n')) {
    if (!line.startsWith('data: ')) continue;
    const { object } = JSON.parse(line.slice(6)) as { object: { kind: string; id: string } };
    if (object.kind === 'upload') found.add(object.id);
  }
  return found;
}
