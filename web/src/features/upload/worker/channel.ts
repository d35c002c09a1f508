/** A queue between what makes work and what does it. */

export class Channel<T> {
  private readonly held: T[] = [];
  private readonly waiting: (() => void)[] = [];
  private closed = false;

  get length(): number {
    return this.held.length;
  }

  push(item: T): void {
    this.held.push(item);
    this.wake();
  }

  /** What is held is still taken. */
  close(): void {
    this.closed = true;
    this.wake();
  }

  /** Undefined when it is closed and empty. */
  async take(): Promise<T | undefined> {
    for (;;) {
      const item = this.held.shift();
      if (item !== undefined) {
        this.wake();
        return item;
      }
      if (this.closed) return undefined;
      await this.change();
    }
  }

  /** Until no more than so many are held. */
  async below(limit: number): Promise<void> {
    while (this.held.length > limit && !this.closed) await this.change();
  }

  private change(): Promise<void> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
