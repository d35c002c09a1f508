/** The roles of a project, and their labels in the chosen language. */
import { useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { listRoles, type RoleLabel } from '../../api/projects';

export function useRoles(projectId: string) {
  return useQuery({ queryKey: ['roles', projectId], queryFn: () => listRoles(projectId) });
}

export function useLabel(): (label: RoleLabel) => string {
  const { i18n } = useTranslation();
  return (label) => (i18n.language === 'ko' ? label.ko : label.en);
}
