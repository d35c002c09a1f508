import { expect, it } from 'vitest';
import { Channel } from './channel';
import { Gate } from './gate';
import { objectsOf } from './news';

it('hands each item to one taker and ends when it is closed and empty', async () => {
  const channel = new Channel<number>();
  const taken: number[] = [];
  const taker = async () => {
    for (let item = await channel.take(); item !== undefined; item = await channel.take()) taken.push(item);
  };
  const takers = Promise.all([taker(), taker(), taker()]);
  for (let n = 0; n < 10; n++) channel.push(n);
  channel.close();
  await takers;
  expect(taken.sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

it('holds who makes too much back until some is taken', async () => {
  const channel = new Channel<number>();
  for (const n of [1, 2, 3]) channel.push(n);
  let passed = false;
  const waiting = channel.below(2).then(() => {
    passed = true;
  });
  await Promise.resolve();
  expect(passed).toBe(false);
  await channel.take();
  await waiting;
});

it('breaks off what is under way when it pauses, and lets nothing pass until it goes on', async () => {
  const gate = new Gate();
  const { signal } = gate;
  gate.close();
  expect(signal.aborted).toBe(true);
  let passed = false;
  const waiting = gate.passed().then(() => {
    passed = true;
  });
  await Promise.resolve();
  expect(passed).toBe(false);
  gate.open();
  await waiting;
  expect(gate.signal.aborted).toBe(false);
});

it('hears of uploads among all that happens', () => {
  const message = (kind: string, id: string) =>
    `id: 1\nevent: x\ndata: ${JSON.stringify({ object: { kind, id } })}`;
  expect(objectsOf([message('upload', 'a'), message('study', 'b'), ': still here'].join('\n\n'))).toEqual(
    new Set(['a']),
  );
});
