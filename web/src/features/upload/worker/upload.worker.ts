/** The worker of the upload page: takes messages, lends tokens from the page, runs one drop. */
import { Memory } from '../memory';
import type { FromWorker, ToWorker } from '../messages';
import { Sending } from './sending';

let sending: Sending | null = null;
const lenders: ((answer: { token: string | null; reachable: boolean }) => void)[] = [];
const early: ToWorker[] = [];

function say(message: FromWorker): void {
  self.postMessage(message);
}

/** Several requests may find their token stale at once: one question serves them all. */
function lend(stale: string | null): Promise<string | null> {
  return new Promise((resolve, reject) => {
    lenders.push(({ token, reachable }) =>
      reachable ? resolve(token) : reject(new TypeError('no token: the server cannot be reached')),
    );
    if (lenders.length === 1) say({ type: 'token-wanted', stale });
  });
}

self.onmessage = ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === 'token') for (const answer of lenders.splice(0)) answer(data);
  else if (data.type === 'begin') {
    void Memory.open().then((memory) => {
      sending = new Sending(data.drop, memory, say, lend);
      for (const message of early.splice(0)) take(sending, message);
      sending.run().catch(reportError);
    });
  } else if (sending === null) early.push(data);
  else take(sending, data);
};

function take(to: Sending, message: ToWorker): void {
  if (message.type === 'files') for (const given of message.files) to.given.push(given);
  else if (message.type === 'gathered') to.given.close();
  else if (message.type === 'form') to.takeForm(message.form);
  else if (message.type === 'pause') to.pause();
  else if (message.type === 'go-on') to.goOn();
}
