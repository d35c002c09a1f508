/** Administration of accounts: who waits for approval stands first. */
import { Badge, Button, Group, Loader, Switch, Table, Text, TextInput, Title } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { changeUserState, getProfile, listUsers, type User, updateUser } from '../../api/account';
import { Section } from '../../components/section';
import classes from '../../components/settings-page.module.css';
import { useStepUp } from '../../components/step-up';
import { useDay } from '../../lib/day';

const ACTIONS = { pending: 'approve', active: 'suspend', suspended: 'activate' } as const;
const COLORS = { pending: 'yellow', active: 'teal', suspended: 'gray' } as const;
const STATES = ['pending', 'active', 'suspended'];

export function UsersPage() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const day = useDay();
  const { fresh, dialog } = useStepUp();
  const [search, setSearch] = useState('');
  const users = useQuery({ queryKey: ['users'], queryFn: listUsers });
  const profile = useQuery({ queryKey: ['profile'], queryFn: getProfile });
  const reload = () => client.invalidateQueries({ queryKey: ['users'] });
  const changing = useMutation({
    mutationFn: (user: User) => fresh(() => changeUserState(user.id, ACTIONS[user.state])),
    onSuccess: reload,
  });
  const promoting = useMutation({
    mutationFn: (user: User) => fresh(() => updateUser(user.id, { is_admin: !user.is_admin })),
    onSuccess: reload,
  });
  const wanted = search.trim().toLowerCase();
  const shown = (users.data ?? [])
    .filter((user) =>
      `${user.username} ${user.display_name} ${user.email ?? ''}`.toLowerCase().includes(wanted),
    )
    .sort((a, b) => STATES.indexOf(a.state) - STATES.indexOf(b.state));
  return (
    <div className={classes.page}>
      <div className={`${classes.column} ${classes.wide}`}>
        <Group justify="space-between">
          <Title order={1} size="h3">
            {t('users.title')}
          </Title>
          <TextInput
            size="xs"
            w={220}
            placeholder={t('users.search')}
            aria-label={t('users.search')}
            data-testid="search-users"
            value={search}
            onChange={(event) => setSearch(event.currentTarget.value)}
          />
        </Group>
        <Section
          title={t('users.accounts', { count: users.data?.length ?? 0 })}
          error={users.error ?? changing.error ?? promoting.error}
        >
          {users.isLoading && <Loader size="sm" aria-label={t('users.loading')} />}
          <Table.ScrollContainer minWidth={760}>
            <Table verticalSpacing={8} fz="sm" mt="xs" highlightOnHover>
              <Table.Thead>
                <Table.Tr>
                  <Table.Th>{t('users.name')}</Table.Th>
                  <Table.Th>{t('profile.email')}</Table.Th>
                  <Table.Th>{t('users.since')}</Table.Th>
                  <Table.Th>{t('users.state')}</Table.Th>
                  <Table.Th>{t('users.admin')}</Table.Th>
                  <Table.Th />
                </Table.Tr>
              </Table.Thead>
              <Table.Tbody>
                {shown.map((user) => (
                  <Table.Tr key={user.id} data-testid="user-row">
                    <Table.Td>
                      <Text size="sm" fw={500}>
                        {user.username}
                      </Text>
                      {user.display_name && (
                        <Text size="xs" c="dimmed">
                          {user.display_name}
                        </Text>
                      )}
                    </Table.Td>
                    <Table.Td c="dimmed">{user.email}</Table.Td>
                    <Table.Td c="dimmed">{day(user.created_at)}</Table.Td>
                    <Table.Td>
                      <Badge variant="light" tt="none" color={COLORS[user.state]} data-testid="user-state">
                        {t(`users.states.${user.state}`)}
                      </Badge>
                    </Table.Td>
                    <Table.Td>
                      <Switch
                        size="sm"
                        aria-label={t('users.adminOf', { name: user.username })}
                        checked={user.is_admin}
                        disabled={user.id === profile.data?.user.id}
                        onChange={() => promoting.mutate(user)}
                      />
                    </Table.Td>
                    <Table.Td>
                      <Group justify="flex-end">
                        <Button
                          size="compact-sm"
                          variant={user.state === 'pending' ? 'filled' : 'default'}
                          disabled={user.id === profile.data?.user.id}
                          data-testid={`user-${ACTIONS[user.state]}`}
                          onClick={() => changing.mutate(user)}
                        >
                          {t(`users.actions.${ACTIONS[user.state]}`)}
                        </Button>
                      </Group>
                    </Table.Td>
                  </Table.Tr>
                ))}
              </Table.Tbody>
            </Table>
          </Table.ScrollContainer>
        </Section>
        {dialog}
      </div>
    </div>
  );
}
