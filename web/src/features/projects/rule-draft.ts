/** Rules while they are edited: what differs from the saved ones, whether it makes sense, and in which order it is saved. */
import type { NewRule, Rule, RuleAttribute } from '../../api/projects';

export interface DraftRule {
  key: string;
  /** As the server has it; null for one that is new. */
  saved: Rule | null;
  rule: NewRule;
  deleted: boolean;
}

export const EFFECTS = ['ALLOW', 'DENY', 'LIMIT'] as const;
export const LEVELS = ['STUDY', 'SERIES', 'INSTANCE'] as const;
type Kind = RuleAttribute['kind'];
type Operator = NewRule['operator'];

const ORDERED: readonly Operator[] = ['EQ', 'NE', 'RANGE', 'IN', 'PRESENT'];
const TEXTS: readonly Operator[] = ['EQ', 'NE', 'CONTAINS', 'IN', 'PRESENT'];

export const operatorsOf = (kind: Kind): readonly Operator[] => (kind === 'text' ? TEXTS : ORDERED);

export function draftOf(saved: Rule): DraftRule {
  const { effect, level, attribute, operator, value, role, user_id, valid_from, expires_at } = saved;
  return {
    key: saved.id,
    saved,
    rule: { effect, level, attribute, operator, value, role, user_id, valid_from, expires_at },
    deleted: false,
  };
}

export function stateOf(draft: DraftRule): 'saved' | 'new' | 'changed' | 'deleted' {
  if (draft.deleted) return 'deleted';
  if (draft.saved === null) return 'new';
  return JSON.stringify(draft.rule) === JSON.stringify(draftOf(draft.saved).rule) ? 'saved' : 'changed';
}

export const standing = (drafts: readonly DraftRule[]): NewRule[] =>
  drafts.filter((one) => !one.deleted).map((one) => one.rule);

/** A value of the right form for the operator, kept from the one before where that is possible. */
export function valueFor(operator: Operator, before: unknown): unknown {
  const first = Array.isArray(before) ? String(before[0] ?? '') : typeof before === 'string' ? before : '';
  switch (operator) {
    case 'PRESENT':
      return true;
    case 'IN':
      return first ? [first] : [];
    case 'RANGE':
      return [first, ''];
    default:
      return first;
  }
}

const FORMS: Record<Kind, RegExp> = {
  text: /\S/,
  date: /^\d{4}([-.]?)\d{2}\1\d{2}$/,
  age: /^\d{1,3}[DWMY]$/i,
  number: /^-?\d+$/,
};

/** What is wrong with the value, as the key of a message; null when it can be saved. */
export function problemOf(rule: NewRule, kind: Kind): string | null {
  const fits = (value: unknown) => FORMS[kind].test(String(value).trim());
  switch (rule.operator) {
    case 'PRESENT':
      return null;
    case 'IN':
      if (!Array.isArray(rule.value) || rule.value.length === 0) return 'rules.wrong.empty';
      return rule.value.every(fits) ? null : `rules.wrong.${kind}`;
    case 'RANGE': {
      const [low, high] = rule.value as [string, string];
      if (!low && !high) return 'rules.wrong.range';
      return (!low || fits(low)) && (!high || fits(high)) ? null : `rules.wrong.${kind}`;
    }
    default:
      if (rule.value === '') return 'rules.wrong.empty';
      return fits(rule.value) ? null : `rules.wrong.${kind}`;
  }
}

/**
 * Each rule is saved by a call of its own. What narrows goes first and what widens last, so that between two calls
 * nobody sees more than before and after.
 */
export function savingOrder(drafts: readonly DraftRule[]): DraftRule[] {
  const rank = (draft: DraftRule) => {
    const allows = draft.rule.effect === 'ALLOW' && (draft.saved?.effect ?? 'ALLOW') === 'ALLOW';
    if (draft.deleted) return allows ? 1 : 3;
    return allows ? 2 : 0;
  };
  return drafts.filter((one) => stateOf(one) !== 'saved').sort((a, b) => rank(a) - rank(b));
}
