/** Administration of groups: for who may manage users. */
import { Button, Loader, Select, Text, TextInput, Title } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { listUsers, type User } from '../../api/account';
import { addToGroup, createGroup, type Group, listGroups, removeFromGroup } from '../../api/projects';
import { Section } from '../../components/section';
import { nameOf } from './person-picker';
import classes from './projects.module.css';

export function GroupsPage() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [name, setName] = useState('');
  const groups = useQuery({ queryKey: ['groups'], queryFn: listGroups });
  const users = useQuery({ queryKey: ['users'], queryFn: listUsers });
  const creating = useMutation({
    mutationFn: () => createGroup(name),
    onSuccess: () => {
      setName('');
      return client.invalidateQueries({ queryKey: ['groups'] });
    },
  });
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <Title order={1} size="h3">
          {t('groups.all')}
        </Title>
        <Section
          title={t('groups.new')}
          hint={t('groups.newHint')}
          error={creating.error ?? groups.error ?? users.error}
        >
          <form
            className={classes.form}
            onSubmit={(event) => {
              event.preventDefault();
              creating.mutate();
            }}
          >
            <TextInput
              label={t('groups.name')}
              w={260}
              maxLength={200}
              value={name}
              data-testid="group-name"
              onChange={(event) => setName(event.currentTarget.value)}
            />
            <Button
              type="submit"
              disabled={!name.trim()}
              loading={creating.isPending}
              data-testid="create-group"
            >
              {t('projects.create')}
            </Button>
          </form>
        </Section>
        {groups.isLoading && <Loader size="sm" aria-label={t('groups.loading')} />}
        {groups.data?.length === 0 && (
          <Text size="sm" c="dimmed">
            {t('groups.noneAtAll')}
          </Text>
        )}
        {groups.data?.map((group) => (
          <GroupCard key={group.id} group={group} users={users.data ?? []} />
        ))}
      </div>
    </div>
  );
}

function GroupCard({ group, users }: { group: Group; users: User[] }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const reload = () => client.invalidateQueries({ queryKey: ['groups'] });
  const adding = useMutation({ mutationFn: (id: string) => addToGroup(group.id, id), onSuccess: reload });
  const removing = useMutation({
    mutationFn: (id: string) => removeFromGroup(group.id, id),
    onSuccess: reload,
  });
  const inside = new Set(group.user_ids);
  const named = (user: User) => nameOf({ name: user.username, display_name: user.display_name });
  return (
    <Section
      title={group.name}
      hint={t('groups.people', { count: group.user_ids.length })}
      error={adding.error ?? removing.error}
    >
      <Select
        mt="sm"
        w={280}
        searchable
        placeholder={t('groups.addPerson')}
        aria-label={t('groups.addPerson')}
        data={users
          .filter((user) => user.state === 'active' && !inside.has(user.id))
          .map((user) => ({ value: user.id, label: named(user) }))}
        value={null}
        onChange={(id) => id !== null && adding.mutate(id)}
      />
      {users
        .filter((user) => inside.has(user.id))
        .map((user) => (
          <div key={user.id} className={classes.line}>
            <Text size="sm">{named(user)}</Text>
            <Button size="compact-sm" variant="default" onClick={() => removing.mutate(user.id)}>
              {t('members.remove')}
            </Button>
          </div>
        ))}
    </Section>
  );
}
