/** The rules of a project: edited as a draft, tried on a member, then saved. */
import { Badge, Button, Group, Loader, Modal, Text } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import {
  changeRule,
  createRule,
  deleteRule,
  listMembers,
  listRuleAttributes,
  listRules,
  type NewRule,
  type Rule,
} from '../../api/projects';
import { Section } from '../../components/section';
import type { TabProps } from './access';
import classes from './projects.module.css';
import { type DraftRule, draftOf, savingOrder, standing, stateOf } from './rule-draft';
import { RuleForm } from './rule-form';
import { RulePreview } from './rule-preview';
import { RuleWords } from './rule-words';

const FIRST: NewRule = {
  effect: 'ALLOW',
  level: 'SERIES',
  attribute: 'Modality',
  operator: 'EQ',
  value: '',
  role: null,
  user_id: null,
  valid_from: null,
  expires_at: null,
};
const STATE_COLORS = { new: 'teal', changed: 'yellow', deleted: 'red' } as const;
const NONE: Rule[] = [];

export function RulesTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const rules = useQuery({ queryKey: ['rules', project.id], queryFn: () => listRules(project.id) });
  const members = useQuery({ queryKey: ['members', project.id], queryFn: () => listMembers(project.id) });
  const attributes = useQuery({
    queryKey: ['rule-attributes'],
    queryFn: listRuleAttributes,
    staleTime: Number.POSITIVE_INFINITY,
  });
  /** null: as the server has them. */
  const [edited, setEdited] = useState<DraftRule[] | null>(null);
  const [open, setOpen] = useState<DraftRule | null>(null);
  const saved = rules.data ?? NONE;
  const drafts = edited ?? saved.map(draftOf);
  const changes = savingOrder(drafts);

  const saving = useMutation({
    mutationFn: async () => {
      for (const draft of changes) await save(project.id, draft);
    },
    // After a failure as well: some were saved, and the draft is taken up again from what stands.
    onSettled: async () => {
      setEdited(null);
      await client.invalidateQueries({ queryKey: ['rules', project.id] });
    },
  });

  const put = (draft: DraftRule) =>
    setEdited(
      drafts.some((one) => one.key === draft.key)
        ? drafts.map((one) => (one.key === draft.key ? draft : one))
        : [...drafts, draft],
    );
  const drop = (draft: DraftRule) =>
    draft.saved === null
      ? setEdited(drafts.filter((one) => one.key !== draft.key))
      : put({ ...draft, deleted: !draft.deleted });

  return (
    <div className={classes.rules}>
      <Section
        title={t('rules.title', { count: saved.length })}
        hint={t('rules.hint')}
        error={rules.error ?? members.error ?? attributes.error ?? saving.error}
        action={
          <Group gap="xs" wrap="nowrap">
            {changes.length > 0 && (
              <Button size="compact-sm" variant="default" onClick={() => setEdited(null)}>
                {t('app.discard')}
              </Button>
            )}
            {changes.length > 0 && (
              <Button
                size="compact-sm"
                loading={saving.isPending}
                data-testid="save-rules"
                onClick={() => saving.mutate()}
              >
                {t('rules.save', { count: changes.length })}
              </Button>
            )}
            <Button
              size="compact-sm"
              variant={changes.length > 0 ? 'default' : 'filled'}
              data-testid="new-rule"
              onClick={() => setOpen({ key: crypto.randomUUID(), saved: null, rule: FIRST, deleted: false })}
            >
              {t('rules.new')}
            </Button>
          </Group>
        }
      >
        {rules.isLoading && <Loader size="sm" mt="sm" aria-label={t('rules.loading')} />}
        {rules.isSuccess && drafts.length === 0 && (
          <div className={classes.empty} data-testid="rules-empty">
            <Text fw={600}>{t('rules.none')}</Text>
            <Text size="sm" c="dimmed">
              {t('rules.noneHint')}
            </Text>
          </div>
        )}
        {rules.isSuccess &&
          drafts.length > 0 &&
          !standing(drafts).some((rule) => rule.effect === 'ALLOW') &&
          standing(drafts).length > 0 && (
            <Text size="sm" c="red" mt="xs" role="status">
              {t('rules.noAllow')}
            </Text>
          )}
        {drafts.map((draft) => {
          const state = stateOf(draft);
          return (
            <div key={draft.key} className={classes.rule} data-testid="rule" data-state={state}>
              <div className={classes.ruleText}>
                <RuleWords rule={draft.rule} access={access} members={members.data ?? []} />
                {state !== 'saved' && (
                  <Badge ml={8} size="sm" variant="outline" tt="none" color={STATE_COLORS[state]}>
                    {t(`rules.states.${state}`)}
                  </Badge>
                )}
              </div>
              {!draft.deleted && (
                <Button size="compact-sm" variant="default" onClick={() => setOpen(draft)}>
                  {t('rules.edit')}
                </Button>
              )}
              <Button
                size="compact-sm"
                variant="default"
                data-testid="delete-rule"
                onClick={() => drop(draft)}
              >
                {t(draft.deleted ? 'rules.keep' : 'rules.delete')}
              </Button>
            </div>
          );
        })}
      </Section>
      <RulePreview
        projectId={project.id}
        members={members.data ?? []}
        saved={standing(saved.map(draftOf))}
        draft={standing(drafts)}
      />
      {open !== null && attributes.isSuccess && (
        <Modal
          opened
          onClose={() => setOpen(null)}
          title={t(open.saved === null ? 'rules.new' : 'rules.edit')}
          size="lg"
          centered
        >
          <RuleForm
            first={open.rule}
            attributes={attributes.data}
            access={access}
            members={members.data ?? []}
            onCancel={() => setOpen(null)}
            onDone={(rule) => {
              put({ ...open, rule });
              setOpen(null);
            }}
          />
        </Modal>
      )}
    </div>
  );
}

async function save(projectId: string, draft: DraftRule): Promise<unknown> {
  if (draft.saved === null) return createRule(projectId, draft.rule);
  if (draft.deleted) return deleteRule(projectId, draft.saved.id);
  return changeRule(projectId, draft.saved.id, draft.saved.version, draft.rule);
}
