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
import { SignInPage } from '../features/identity/sign-in-page';
import { queryClient } from './query-client';
import { Shell } from './shell';

const rootRoute = createRootRoute();

const signInRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: '/sign-in',
  component: SignInPage,
  validateSearch: (search: Record<string, unknown>): { next?: string } =>
    typeof search.next === 'string' && /^\/(?![/\\])/.test(search.next) ? { next: search.next } : {},
});

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

export const router = createRouter({
  routeTree: rootRoute.addChildren([signInRoute, signedInRoute.addChildren([studyListRoute, viewerRoute])]),
  defaultNotFoundComponent: () => {
    throw redirect({ to: '/' });
  },
});

onSessionEnd(() => {
  queryClient.clear();
  void router.navigate({ to: '/sign-in' });
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
