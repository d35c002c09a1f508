/** Groups that have a role in the project: whoever is in them is a member. */
import { Button, Text, TextInput } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import {
  type Candidate,
  listProjectGroups,
  type ProjectGroup,
  removeProjectGroup,
  setProjectGroup,
} from '../../api/projects';
import { ConfirmButton } from '../../components/confirm-button';
import { Section } from '../../components/section';
import { endOfDay, useDate } from '../../lib/day';
import type { TabProps } from './access';
import { PersonPicker } from './person-picker';
import classes from './projects.module.css';
import { RoleSelect } from './role-select';

export function GroupsTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const date = useDate();
  const groups = useQuery({
    queryKey: ['project-groups', project.id],
    queryFn: () => listProjectGroups(project.id),
  });
  const [group, setGroup] = useState<Candidate | null>(null);
  const [role, setRole] = useState('viewer');
  const [until, setUntil] = useState('');
  const reload = async () => {
    await client.invalidateQueries({ queryKey: ['project-groups', project.id] });
    await client.invalidateQueries({ queryKey: ['members', project.id] });
  };
  const adding = useMutation({
    mutationFn: (group_id: string) =>
      setProjectGroup(project.id, { group_id, role, expires_at: endOfDay(until) }),
    onSuccess: () => {
      setGroup(null);
      return reload();
    },
  });
  const changing = useMutation({
    mutationFn: (change: ProjectGroup) => setProjectGroup(project.id, change),
    onSuccess: reload,
  });
  const removing = useMutation({
    mutationFn: (id: string) => removeProjectGroup(project.id, id),
    onSuccess: reload,
  });
  return (
    <Section
      title={t('groups.title')}
      hint={t('groups.hint')}
      error={groups.error ?? adding.error ?? changing.error ?? removing.error}
    >
      <form
        className={classes.form}
        onSubmit={(event) => {
          event.preventDefault();
          if (group !== null) adding.mutate(group.id);
        }}
      >
        <PersonPicker
          key={adding.submittedAt}
          projectId={project.id}
          kind="group"
          chosen={group}
          onChoose={setGroup}
        />
        <RoleSelect access={access} label={t('members.role')} value={role} onChange={setRole} />
        <TextInput
          type="date"
          label={t('members.until')}
          w={160}
          value={until}
          onChange={(event) => setUntil(event.currentTarget.value)}
        />
        <Button type="submit" disabled={group === null} loading={adding.isPending} data-testid="add-group">
          {t('members.add')}
        </Button>
      </form>
      {groups.data?.length === 0 && (
        <Text size="sm" c="dimmed">
          {t('groups.none')}
        </Text>
      )}
      {groups.data?.map((one) => (
        <div key={one.group_id} className={classes.line} data-testid="project-group">
          <div className={classes.text}>
            <Text size="sm" fw={500}>
              {one.name}
            </Text>
            <Text size="xs" c="dimmed">
              {one.expires_at === null
                ? t('members.always')
                : t('members.untilDay', { day: date(one.expires_at) })}
            </Text>
          </div>
          <span className={classes.words}>
            <RoleSelect
              access={access}
              size="xs"
              value={one.role}
              onChange={(chosen) => changing.mutate({ ...one, role: chosen })}
            />
            <ConfirmButton
              label={t('members.remove')}
              question={t('groups.removeQuestion', { name: one.name })}
              onConfirm={() => removing.mutate(one.group_id)}
            />
          </span>
        </div>
      ))}
    </Section>
  );
}
