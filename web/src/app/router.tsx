/** The pages and who may open them. */
import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  redirect,
} from '@tanstack/react-router';
import { ensureSignedIn, onSessionEnd } from '../api/session';
import { StudyListPage } from '../features/archive/study-list-page';
import { ForgotPasswordPage, ResetPasswordPage } from '../features/identity/password-reset-pages';
import { SharePage } from '../features/identity/share-page';
import { SignInPage } from '../features/identity/sign-in-page';
import { SignUpPage } from '../features/identity/sign-up-page';
import { forgetHandles } from '../features/upload/memory';
import { queryClient } from './query-client';
import { Shell } from './shell';

const rootRoute = createRootRoute();

const signInRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: '/sign-in',
  component: SignInPage,
  validateSearch: (search: Record<string, unknown>): { next?: string; problem?: string } => ({
    ...(typeof search.next === 'string' && /^\/(?![/\\])/.test(search.next) && { next: search.next }),
    ...(typeof search.problem === 'string' && { problem: search.problem }),
  }),
});

const signUpRoute = createRoute({ getParentRoute: () => rootRoute, path: '/sign-up', component: SignUpPage });

const forgotPasswordRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: '/forgot-password',
  component: ForgotPasswordPage,
});

const resetPasswordRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: '/reset-password',
  component: ResetPasswordPage,
});

const shareRoute = createRoute({ getParentRoute: () => rootRoute, path: '/share', component: SharePage });

const signedInRoute = createRoute({
  getParentRoute: () => rootRoute,
  id: 'signed-in',
  component: Shell,
  beforeLoad: async ({ location }) => {
    if (!(await ensureSignedIn())) throw redirect({ to: '/sign-in', search: { next: location.href } });
  },
});

const studyListRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/',
  component: StudyListPage,
});

const viewerRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/viewer/$studyUid',
  validateSearch: (search: Record<string, unknown>): { series?: string } =>
    typeof search.series === 'string' ? { series: search.series } : {},
  component: lazyRouteComponent(() => import('../features/viewer/viewer-page'), 'ViewerPage'),
});

const profileRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/profile',
  component: lazyRouteComponent(() => import('../features/identity/profile-page'), 'ProfilePage'),
});

const usersRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/users',
  component: lazyRouteComponent(() => import('../features/identity/users-page'), 'UsersPage'),
});

const projectsRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/projects',
  component: lazyRouteComponent(() => import('../features/projects/projects-page'), 'ProjectsPage'),
});

const projectRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/projects/$projectId',
  validateSearch: (search: Record<string, unknown>): { tab?: string } =>
    typeof search.tab === 'string' ? { tab: search.tab } : {},
  component: lazyRouteComponent(() => import('../features/projects/project-page'), 'ProjectPage'),
});

const memberMatrixRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/matrix',
  component: lazyRouteComponent(() => import('../features/projects/member-matrix-page'), 'MemberMatrixPage'),
});

const auditRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/audit',
  component: lazyRouteComponent(() => import('../features/audit/audit-page'), 'AuditPage'),
});

const uploadRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/upload',
  component: lazyRouteComponent(() => import('../features/upload/upload-page'), 'UploadPage'),
});

const groupsRoute = createRoute({
  getParentRoute: () => signedInRoute,
  path: '/groups',
  component: lazyRouteComponent(() => import('../features/projects/groups-page'), 'GroupsPage'),
});

export const router = createRouter({
  routeTree: rootRoute.addChildren([
    signInRoute,
    signUpRoute,
    forgotPasswordRoute,
    resetPasswordRoute,
    shareRoute,
    signedInRoute.addChildren([
      studyListRoute,
      viewerRoute,
      uploadRoute,
      profileRoute,
      usersRoute,
      projectsRoute,
      projectRoute,
      groupsRoute,
      memberMatrixRoute,
      auditRoute,
    ]),
  ]),
  defaultNotFoundComponent: () => {
    throw redirect({ to: '/' });
  },
});

onSessionEnd(() => {
  queryClient.clear();
  void forgetHandles();
  void router.navigate({ to: '/sign-in' });
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
