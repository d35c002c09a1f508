/** A key press as the name that actions use: `w`, `mod+z`, `ArrowUp`, `?`. Pure. */

interface Press {
  key: string;
  code: string;
  ctrlKey: boolean;
  metaKey: boolean;
  altKey: boolean;
  shiftKey: boolean;
}

/**
 * Letters are told by their place on the keyboard: with a Korean layout the key W types ㅈ and still means `w`.
 * `mod` is Control, or Command on a Mac.
 */
export function shortcutOf(press: Press): string {
  const letter = /^Key([A-Z])$/.exec(press.code)?.[1]?.toLowerCase();
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(press.code)?.[1];
  const named = letter ?? (press.shiftKey ? undefined : digit) ?? press.key;
  const shift = press.shiftKey && (letter !== undefined || press.key.length > 1);
  return [(press.ctrlKey || press.metaKey) && 'mod', press.altKey && 'alt', shift && 'shift', named]
    .filter(Boolean)
    .join('+');
}

/** Whether the press belongs to a field that one types into, or to a control that has a meaning of its own for it. */
export function isTyping(target: EventTarget | null, key: string): boolean {
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return true;
  if (target.closest('[role=slider],[role=menu],[role=listbox],[role=dialog],[role=tablist]') !== null)
    return true;
  return (key === ' ' || key === 'Enter') && target.closest('button,a,[role=button],[role=tab]') !== null;
}
