/** A rule as a sentence. */
import { Badge } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import type { Member, NewRule } from '../../api/projects';
import { useDate } from '../../lib/day';
import type { ProjectAccess } from './access';
import { useLabel } from './use-roles';

export const EFFECT_COLORS = { ALLOW: 'teal', DENY: 'red', LIMIT: 'yellow' } as const;

export function RuleWords({
  rule,
  access,
  members,
}: {
  rule: NewRule;
  access: ProjectAccess;
  members: Member[];
}) {
  const { t } = useTranslation();
  const label = useLabel();
  const date = useDate();
  const role = rule.role ? access.roleNamed(rule.role) : undefined;
  const person = members.find((member) => member.user_id === rule.user_id);
  const whom = rule.user_id
    ? (person && (person.display_name || person.username)) || t('rules.somebody')
    : rule.role
      ? role
        ? label(role.label)
        : rule.role
      : t('rules.everybody');
  const value = Array.isArray(rule.value)
    ? rule.operator === 'RANGE'
      ? rule.value.map((one) => one || '…').join(' – ')
      : rule.value.join(', ')
    : String(rule.value);
  const attribute = t(`rules.attributes.${rule.attribute}`, { defaultValue: rule.attribute });
  const words = rule.operator === 'PRESENT' ? (rule.value ? 'PRESENT' : 'ABSENT') : rule.operator;
  return (
    <>
      <Badge color={EFFECT_COLORS[rule.effect]} variant="light" tt="none" mr={8}>
        {t(`rules.effects.${rule.effect}`)}
      </Badge>
      {t(`rules.levels.${rule.level}`)} · {t(`rules.words.${words}`, { attribute, value })} · {whom}
      {rule.expires_at && ` · ${t('members.untilDay', { day: date(rule.expires_at) })}`}
    </>
  );
}
