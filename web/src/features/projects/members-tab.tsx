/** Who belongs to a project, in which role and how far that reaches, and until when. */
import { Badge, Button, Loader, Table, Text, TextInput } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type Candidate, listMembers, type Member, removeMember, setMember } from '../../api/projects';
import { ConfirmButton } from '../../components/confirm-button';
import { Section } from '../../components/section';
import { endOfDay, useDate } from '../../lib/day';
import { reachOf, type TabProps } from './access';
import { PersonPicker } from './person-picker';
import classes from './projects.module.css';
import { RoleSelect } from './role-select';
import { useLabel } from './use-roles';

export function MembersTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const date = useDate();
  const label = useLabel();
  const manages = access.may('project.manage');
  const members = useQuery({ queryKey: ['members', project.id], queryFn: () => listMembers(project.id) });
  const reload = () => client.invalidateQueries({ queryKey: ['members', project.id] });
  const changing = useMutation({
    mutationFn: (change: { member: Member; role: string }) =>
      setMember(project.id, {
        user_id: change.member.user_id,
        role: change.role,
        valid_from: change.member.valid_from ?? null,
        expires_at: change.member.expires_at,
      }),
    onSuccess: reload,
  });
  const removing = useMutation({
    mutationFn: (member: Member) => removeMember(project.id, member.user_id),
    onSuccess: reload,
  });
  return (
    <Section
      title={t('members.title', { count: members.data?.length ?? 0 })}
      error={members.error ?? changing.error ?? removing.error}
    >
      {manages && <AddMember project={project} access={access} onAdded={reload} />}
      {members.isLoading && <Loader size="sm" mt="sm" aria-label={t('members.loading')} />}
      <Table.ScrollContainer minWidth={720}>
        <Table verticalSpacing={6} fz="sm" highlightOnHover data-testid="members">
          <Table.Thead>
            <Table.Tr>
              <Table.Th>{t('members.name')}</Table.Th>
              <Table.Th>{t('members.role')}</Table.Th>
              <Table.Th>{t('members.reach')}</Table.Th>
              <Table.Th>{t('members.until')}</Table.Th>
              {manages && <Table.Th aria-label={t('members.remove')} />}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {members.data?.map((member) => {
              const role = access.roleNamed(member.role);
              return (
                <Table.Tr key={member.user_id} data-testid="member">
                  <Table.Td>
                    <Text size="sm" fw={500}>
                      {member.display_name || member.username}
                    </Text>
                    <Text size="xs" c="dimmed">
                      {member.username}
                    </Text>
                  </Table.Td>
                  <Table.Td>
                    {manages && !member.via_group ? (
                      <RoleSelect
                        access={access}
                        size="xs"
                        value={member.role}
                        onChange={(chosen) => changing.mutate({ member, role: chosen })}
                      />
                    ) : (
                      (role && label(role.label)) || member.role
                    )}
                    {member.via_group && (
                      <Badge ml={6} size="sm" variant="light" color="gray" tt="none">
                        {t('members.viaGroup')}
                      </Badge>
                    )}
                  </Table.Td>
                  <Table.Td>
                    <ReachWords permissions={role?.permissions ?? []} />
                  </Table.Td>
                  <Table.Td>
                    {member.expires_at === null ? (
                      <Text size="xs" c="dimmed">
                        {t('members.always')}
                      </Text>
                    ) : (
                      <Text size="xs" c={new Date(member.expires_at) < new Date() ? 'red' : undefined}>
                        {date(member.expires_at)}
                      </Text>
                    )}
                  </Table.Td>
                  {manages && (
                    <Table.Td ta="right">
                      <ConfirmButton
                        label={t('members.remove')}
                        question={t('members.removeQuestion', {
                          name: member.display_name || member.username,
                        })}
                        testId="remove-member"
                        disabled={Boolean(member.via_group)}
                        onConfirm={() => removing.mutate(member)}
                      />
                    </Table.Td>
                  )}
                </Table.Tr>
              );
            })}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
    </Section>
  );
}

function AddMember({ project, access, onAdded }: TabProps & { onAdded: () => Promise<void> }) {
  const { t } = useTranslation();
  const [person, setPerson] = useState<Candidate | null>(null);
  const [role, setRole] = useState('viewer');
  const [until, setUntil] = useState('');
  const adding = useMutation({
    mutationFn: (user_id: string) => setMember(project.id, { user_id, role, expires_at: endOfDay(until) }),
    onSuccess: () => {
      setPerson(null);
      return onAdded();
    },
  });
  return (
    <>
      <form
        className={classes.form}
        onSubmit={(event) => {
          event.preventDefault();
          if (person !== null) adding.mutate(person.id);
        }}
      >
        <PersonPicker
          key={adding.submittedAt}
          projectId={project.id}
          kind="user"
          chosen={person}
          onChoose={setPerson}
        />
        <RoleSelect access={access} label={t('members.role')} value={role} onChange={setRole} />
        <TextInput
          type="date"
          label={t('members.until')}
          w={160}
          value={until}
          onChange={(event) => setUntil(event.currentTarget.value)}
        />
        <Button type="submit" disabled={person === null} loading={adding.isPending} data-testid="add-member">
          {t(person?.member ? 'members.change' : 'members.add')}
        </Button>
      </form>
      {adding.error && (
        <Text size="sm" c="red" role="alert">
          {adding.error.message}
        </Text>
      )}
    </>
  );
}

/** Own or all, in words: what the role reaches of the work in the project. */
function ReachWords({ permissions }: { permissions: readonly string[] }) {
  const { t } = useTranslation();
  const lines = (['annotation', 'segmentation'] as const).map((kind) => {
    const parts = (['read', 'edit', 'delete'] as const).flatMap((action) => {
      const reach = reachOf(permissions, `${kind}.${action}`);
      return reach === null ? [] : [t(`members.reaches.${action}.${reach}`)];
    });
    return `${t(`members.kinds.${kind}`)}: ${parts.join(', ') || t('members.reaches.nothing')}`;
  });
  return (
    <Text size="xs" c="dimmed">
      {lines[0]}
      <br />
      {lines[1]}
    </Text>
  );
}
