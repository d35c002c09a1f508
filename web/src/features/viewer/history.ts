/** Undo and redo of what this person did in this page, whatever it was, in the order of the doing. */
import { Store } from '../../lib/store';

export interface Step {
  undo: () => void;
  redo: () => void;
}

/** More than anybody takes back; a step holds the slices that it changed. */
const MOST_STEPS = 200;

export class History {
  readonly state = new Store({ canUndo: false, canRedo: false });
  private done: Step[] = [];
  private undone: Step[] = [];

  push(step: Step): void {
    this.done = [...this.done.slice(-MOST_STEPS + 1), step];
    this.undone = [];
    this.tell();
  }

  /** When the ground has changed under the steps: to undo what was given up would take away from somebody else's work. */
  clear(): void {
    this.done = [];
    this.undone = [];
    this.tell();
  }

  undo(): void {
    const step = this.done.pop();
    if (step === undefined) return;
    step.undo();
    this.undone.push(step);
    this.tell();
  }

  redo(): void {
    const step = this.undone.pop();
    if (step === undefined) return;
    step.redo();
    this.done.push(step);
    this.tell();
  }

  private tell(): void {
    this.state.set({ canUndo: this.done.length > 0, canRedo: this.undone.length > 0 });
  }
}
