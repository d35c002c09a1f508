/** Pausing: what is under way is broken off, and what comes next waits. */

export class Gate {
  private controller = new AbortController();
  private opening: Promise<void> | null = null;
  private release: () => void = () => undefined;

  get isOpen(): boolean {
    return this.opening === null;
  }

  /** Aborts when the gate closes. */
  get signal(): AbortSignal {
    return this.controller.signal;
  }

  async passed(): Promise<void> {
    while (this.opening !== null) await this.opening;
  }

  close(): void {
    if (this.opening !== null) return;
    this.opening = new Promise((resolve) => {
      this.release = resolve;
    });
    this.controller.abort();
  }

  open(): void {
    if (this.opening === null) return;
    this.controller = new AbortController();
    this.opening = null;
    this.release();
  }
}
