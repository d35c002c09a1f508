import { expect, it } from 'vitest';
import en from './en.json';
import ko from './ko.json';

function keysOf(tree: object, prefix = ''): string[] {
  return Object.entries(tree).flatMap(([key, value]) =>
    typeof value === 'object' ? keysOf(value, `${prefix}${key}.`) : [`${prefix}${key}`],
  );
}
const placeholders = (text: string) => [...text.matchAll(/{{(\w+)}}/g)].map((match) => match[1]).sort();
function textAt(tree: object, path: string): string {
  return path.split('.').reduce<unknown>((at, key) => (at as Record<string, unknown>)[key], tree) as string;
}

it('says everything in both languages', () => {
  expect(keysOf(ko)).toEqual(keysOf(en));
});

it('fills the same figures into both languages', () => {
  for (const key of keysOf(en))
    expect(placeholders(textAt(ko, key)), key).toEqual(placeholders(textAt(en, key)));
});
