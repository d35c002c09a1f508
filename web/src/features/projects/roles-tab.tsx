/** Role x permission, with the labels of the server; the project's own roles are changed in place. */
import { Button, Checkbox, Group, Modal, Select, Stack, TextInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { deleteRole, type Role, setRole } from '../../api/projects';
import { ConfirmButton } from '../../components/confirm-button';
import { Section } from '../../components/section';
import type { TabProps } from './access';
import classes from './projects.module.css';
import { useLabel } from './use-roles';

type Changes = Readonly<Record<string, ReadonlySet<string>>>;

export function RolesTab({ project, access }: TabProps) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const label = useLabel();
  const manages = access.may('project.manage');
  const [changes, setChanges] = useState<Changes>({});
  const [naming, setNaming] = useState(false);
  const reload = () => client.invalidateQueries({ queryKey: ['roles', project.id] });
  const saving = useMutation({
    mutationFn: async () => {
      for (const [name, permissions] of Object.entries(changes)) {
        const role = access.roleNamed(name) as Role;
        await setRole(project.id, { name, label: role.label, permissions: [...permissions] });
        setChanges(({ [name]: _saved, ...rest }) => rest);
      }
    },
    onSettled: reload,
  });
  const deleting = useMutation({
    mutationFn: (name: string) => deleteRole(project.id, name),
    onSuccess: reload,
  });
  const held = (role: Role) => changes[role.name] ?? new Set(role.permissions);
  const toggle = (role: Role, permission: string) => {
    const next = new Set(held(role));
    if (!next.delete(permission)) next.add(permission);
    setChanges({ ...changes, [role.name]: next });
  };
  const changed = Object.keys(changes).length;
  return (
    <Section
      title={t('roles.title')}
      hint={t('roles.hint')}
      error={saving.error ?? deleting.error}
      action={
        manages && (
          <Group gap="xs">
            {changed > 0 && (
              <Button size="compact-sm" variant="default" onClick={() => setChanges({})}>
                {t('app.discard')}
              </Button>
            )}
            {changed > 0 && (
              <Button
                size="compact-sm"
                loading={saving.isPending}
                data-testid="save-roles"
                onClick={() => saving.mutate()}
              >
                {t('roles.save', { count: changed })}
              </Button>
            )}
            <Button
              size="compact-sm"
              variant="default"
              data-testid="new-role"
              onClick={() => setNaming(true)}
            >
              {t('roles.new')}
            </Button>
          </Group>
        )
      }
    >
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls is reached by the keyboard */}
      <section className={classes.matrix} tabIndex={0} aria-label={t('roles.title')}>
        <table data-testid="role-matrix">
          <thead>
            <tr>
              <th scope="col">{t('roles.permission')}</th>
              {access.roles.map((role) => (
                <th key={role.name} scope="col" title={role.name}>
                  {label(role.label)}
                  {role.project_id && manages && (
                    <div>
                      <ConfirmButton
                        label={t('roles.delete')}
                        question={t('roles.deleteQuestion', { name: label(role.label) })}
                        onConfirm={() => deleting.mutate(role.name)}
                      />
                    </div>
                  )}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {access.permissions.map((permission) => (
              <tr key={permission.name}>
                <th scope="row" title={permission.name}>
                  {label(permission.label)}
                </th>
                {access.roles.map((role) => {
                  const has = held(role).has(permission.name);
                  return (
                    <td key={role.name}>
                      {role.project_id && manages ? (
                        <Checkbox
                          size="xs"
                          checked={has}
                          aria-label={`${label(role.label)}: ${label(permission.label)}`}
                          onChange={() => toggle(role, permission.name)}
                          styles={{ body: { justifyContent: 'center' } }}
                        />
                      ) : (
                        <span className={has ? classes.tick : classes.none}>
                          <span aria-hidden="true">{has ? '✓' : '–'}</span>
                          <span className="visually-hidden">{t(has ? 'roles.yes' : 'roles.no')}</span>
                        </span>
                      )}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
      {naming && (
        <NewRole project={project} access={access} onClose={() => setNaming(false)} onMade={reload} />
      )}
    </Section>
  );
}

function NewRole({
  project,
  access,
  onClose,
  onMade,
}: TabProps & { onClose: () => void; onMade: () => Promise<void> }) {
  const { t } = useTranslation();
  const label = useLabel();
  const [en, setEn] = useState('');
  const [ko, setKo] = useState('');
  const [name, setName] = useState('');
  const [like, setLike] = useState('viewer');
  const making = useMutation({
    mutationFn: () =>
      setRole(project.id, {
        name,
        label: { en: en || ko, ko: ko || en },
        permissions: access.roleNamed(like)?.permissions ?? [],
      }),
    onSuccess: async () => {
      await onMade();
      onClose();
    },
  });
  return (
    <Modal opened onClose={onClose} title={t('roles.new')} centered>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          making.mutate();
        }}
      >
        <Stack gap="sm">
          <TextInput
            label={t('roles.nameKo')}
            value={ko}
            onChange={(event) => setKo(event.currentTarget.value)}
          />
          <TextInput
            label={t('roles.nameEn')}
            value={en}
            data-testid="role-label"
            onChange={(event) => setEn(event.currentTarget.value)}
          />
          <TextInput
            label={t('roles.shortName')}
            description={t('roles.shortNameHint')}
            value={name}
            data-testid="role-name"
            error={name && !/^[a-z][a-z0-9_]{0,63}$/.test(name) ? t('roles.shortNameWrong') : null}
            onChange={(event) => setName(event.currentTarget.value)}
          />
          <Select
            label={t('roles.like')}
            allowDeselect={false}
            data={access.roles.map((role) => ({ value: role.name, label: label(role.label) }))}
            value={like}
            onChange={(value) => value !== null && setLike(value)}
          />
          {making.error && (
            <span role="alert" style={{ color: 'var(--mantine-color-error)' }}>
              {making.error.message}
            </span>
          )}
          <Button
            type="submit"
            disabled={!/^[a-z][a-z0-9_]{0,63}$/.test(name) || !(en || ko)}
            loading={making.isPending}
            data-testid="make-role"
          >
            {t('projects.create')}
          </Button>
        </Stack>
      </form>
    </Modal>
  );
}
