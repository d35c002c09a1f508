/** One rule, field by field; it goes to the draft, not to the server. */
import { Button, Group, SegmentedControl, Select, Stack, TagsInput, Text, TextInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Member, NewRule, RuleAttribute } from '../../api/projects';
import { endOfDay } from '../../lib/day';
import type { ProjectAccess } from './access';
import classes from './projects.module.css';
import { EFFECTS, LEVELS, operatorsOf, problemOf, valueFor } from './rule-draft';
import { useLabel } from './use-roles';

interface Props {
  first: NewRule;
  attributes: RuleAttribute[];
  access: ProjectAccess;
  members: Member[];
  onDone: (rule: NewRule) => void;
  onCancel: () => void;
}

export function RuleForm({ first, attributes, access, members, onDone, onCancel }: Props) {
  const { t } = useTranslation();
  const label = useLabel();
  const [rule, setRule] = useState(first);
  const kind = attributes.find((one) => one.name === rule.attribute)?.kind ?? 'text';
  const change = (part: Partial<NewRule>) => setRule({ ...rule, ...part });
  const problem = problemOf(rule, kind);
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        if (problem === null) onDone(rule);
      }}
    >
      <Stack gap="sm">
        <SegmentedControl
          aria-label={t('rules.effect')}
          value={rule.effect}
          onChange={(value) => change({ effect: value as NewRule['effect'] })}
          data={EFFECTS.map((value) => ({ value, label: t(`rules.effects.${value}`) }))}
        />
        <Text size="xs" c="dimmed">
          {t(`rules.effectHints.${rule.effect}`)}
        </Text>
        <div className={classes.fields}>
          <Select
            label={t('rules.level')}
            allowDeselect={false}
            data={LEVELS.map((value) => ({ value, label: t(`rules.levels.${value}`) }))}
            value={rule.level}
            onChange={(value) => value && change({ level: value as NewRule['level'] })}
          />
          <Select
            label={t('rules.attribute')}
            searchable
            allowDeselect={false}
            data-testid="rule-attribute"
            data={attributes.map(({ name }) => ({
              value: name,
              label: t(`rules.attributes.${name}`, { defaultValue: name }),
            }))}
            value={rule.attribute}
            onChange={(attribute) => {
              if (attribute === null) return;
              const next = attributes.find((one) => one.name === attribute)?.kind ?? 'text';
              const operator = operatorsOf(next).includes(rule.operator) ? rule.operator : 'EQ';
              change({ attribute, operator, value: valueFor(operator, '') });
            }}
          />
          <Select
            label={t('rules.operator')}
            allowDeselect={false}
            data-testid="rule-operator"
            data={operatorsOf(kind).map((value) => ({ value, label: t(`rules.operators.${value}`) }))}
            value={rule.operator}
            onChange={(operator) =>
              operator &&
              change({
                operator: operator as NewRule['operator'],
                value: valueFor(operator as NewRule['operator'], rule.value),
              })
            }
          />
          <ValueField rule={rule} kind={kind} onChange={(value) => change({ value })} />
        </div>
        <div className={classes.fields}>
          <Select
            label={t('rules.forRole')}
            placeholder={t('rules.everybody')}
            clearable
            data={access.roles.map((role) => ({ value: role.name, label: label(role.label) }))}
            value={rule.role ?? null}
            onChange={(role) => change({ role })}
          />
          <Select
            label={t('rules.forPerson')}
            placeholder={t('rules.everybody')}
            clearable
            searchable
            data={members.map((one) => ({ value: one.user_id, label: one.display_name || one.username }))}
            value={rule.user_id ?? null}
            onChange={(user_id) => change({ user_id })}
          />
          <TextInput
            type="date"
            label={t('members.until')}
            value={rule.expires_at ? localDay(rule.expires_at) : ''}
            onChange={(event) => change({ expires_at: endOfDay(event.currentTarget.value) })}
          />
        </div>
        {problem !== null && (
          <Text size="xs" c="dimmed" role="status" data-testid="rule-problem">
            {t(problem)}
          </Text>
        )}
        <Group justify="flex-end" gap="xs">
          <Button variant="default" onClick={onCancel}>
            {t('app.cancel')}
          </Button>
          <Button type="submit" disabled={problem !== null} data-testid="rule-done">
            {t('rules.take')}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function ValueField({
  rule,
  kind,
  onChange,
}: {
  rule: NewRule;
  kind: RuleAttribute['kind'];
  onChange: (value: unknown) => void;
}) {
  const { t } = useTranslation();
  const placeholder = t(`rules.examples.${kind}`);
  switch (rule.operator) {
    case 'PRESENT':
      return (
        <Select
          label={t('rules.value')}
          allowDeselect={false}
          data={[
            { value: 'true', label: t('rules.present') },
            { value: 'false', label: t('rules.absent') },
          ]}
          value={String(rule.value)}
          onChange={(value) => onChange(value === 'true')}
        />
      );
    case 'IN':
      return (
        <TagsInput
          label={t('rules.values')}
          description={t('rules.valuesHint')}
          placeholder={placeholder}
          acceptValueOnBlur
          value={rule.value as string[]}
          onChange={onChange}
        />
      );
    case 'RANGE': {
      const [low, high] = rule.value as [string, string];
      return (
        <Group gap={6} wrap="nowrap" align="flex-end">
          <TextInput
            label={t('rules.from')}
            placeholder={placeholder}
            value={low}
            onChange={(event) => onChange([event.currentTarget.value, high])}
          />
          <TextInput
            label={t('rules.to')}
            placeholder={placeholder}
            value={high}
            onChange={(event) => onChange([low, event.currentTarget.value])}
          />
        </Group>
      );
    }
    default:
      return (
        <TextInput
          label={t('rules.value')}
          placeholder={placeholder}
          data-testid="rule-value"
          value={String(rule.value ?? '')}
          onChange={(event) => onChange(event.currentTarget.value)}
        />
      );
  }
}

const localDay = (iso: string) => {
  const at = new Date(iso);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
};
