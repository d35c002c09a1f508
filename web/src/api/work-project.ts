/** Where work on a study may go: the projects that hold it, with what one may do in each. */
import { api, bodyOf } from './client';

export interface WorkProject {
  id: string;
  name: string;
  permissions: readonly string[];
}

export async function projectsOfStudy(studyUid: string, signal?: AbortSignal): Promise<WorkProject[]> {
  const query = { study_instance_uid: studyUid };
  const [held, me] = await Promise.all([
    bodyOf(api.GET('/api/v1/projects', { params: { query }, ...(signal && { signal }) })),
    bodyOf(api.GET('/api/v1/users/me', { ...(signal && { signal }) })),
  ]);
  return held.items.map(({ id, name }) => ({
    id,
    name,
    permissions: me.projects.find((one) => one.project_id === id)?.permissions ?? [],
  }));
}
