/** How a shortcut is written for people. */
import type { TFunction } from 'i18next';

const NAMES: Record<string, string> = {
  ArrowUp: '↑',
  ArrowDown: '↓',
  ArrowLeft: '←',
  ArrowRight: '→',
  mod: /Mac/.test(navigator.userAgent) ? '⌘' : 'Ctrl',
  shift: 'Shift',
  alt: 'Alt',
  Delete: 'Del',
};

export function keyName(shortcut: string, t: TFunction): string {
  if (shortcut === ' ') return t('viewer.spaceKey');
  return shortcut
    .split(/\+(?=.)/)
    .map((part) => NAMES[part] ?? (part.length === 1 ? part.toUpperCase() : part))
    .join('+');
}
