/** A role of the project, by its label. */
import { Select } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import type { ProjectAccess } from './access';
import { useLabel } from './use-roles';

interface Props {
  access: ProjectAccess;
  value: string;
  onChange: (role: string) => void;
  label?: string;
  disabled?: boolean;
  size?: string;
}

export function RoleSelect({ access, value, onChange, label, disabled, size }: Props) {
  const { t } = useTranslation();
  const labelOf = useLabel();
  return (
    <Select
      label={label}
      aria-label={label ?? t('members.role')}
      w={190}
      size={size ?? 'sm'}
      allowDeselect={false}
      disabled={disabled ?? false}
      data-testid="role"
      data={access.roles.map((role) => ({ value: role.name, label: labelOf(role.label) }))}
      value={value}
      onChange={(role) => role !== null && onChange(role)}
    />
  );
}
