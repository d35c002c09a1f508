/** The frame of every signed-in page: header above, page below. */
import { ActionIcon, Menu, Tooltip, useComputedColorScheme, useMantineColorScheme } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, Outlet } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { getProfile } from '../api/account';
import { getMe } from '../api/audit';
import { signOut } from '../api/session';
import { MoonIcon, SunIcon, UserIcon } from '../components/icons';
import { LanguageSwitch } from '../components/language-switch';
import classes from './shell.module.css';

export function Shell() {
  const { t } = useTranslation();
  const pages = usePages();
  return (
    <div className={classes.frame}>
      <header className={classes.header}>
        <Link to="/" className={classes.brand} aria-label={t('app.home')}>
          <img src="/favicon.svg" alt="" width={20} height={20} />
          <span>Annotomy</span>
        </Link>
        <nav className={classes.nav} aria-label={t('app.pages')}>
          {pages.map(({ to, label }) => (
            <Link key={to} to={to} activeOptions={{ exact: to === '/' }} className={classes.page}>
              {t(label)}
            </Link>
          ))}
        </nav>
        <div className={classes.right}>
          <LanguageSwitch />
          <SchemeSwitch />
          <UserMenu />
        </div>
      </header>
      <main className={classes.main}>
        <Outlet />
      </main>
    </div>
  );
}

const PAGES = [
  { to: '/', label: 'app.studies' },
  { to: '/upload', label: 'app.upload' },
  { to: '/projects', label: 'app.projects' },
  { to: '/audit', label: 'app.audit' },
] as const;

/** The audit stands there for who may read it; the server refuses everybody else all the same. */
function usePages() {
  const me = useQuery({ queryKey: ['me'], queryFn: getMe });
  const audits =
    me.data?.is_admin ||
    (me.data?.global_roles.length ?? 0) > 0 ||
    me.data?.projects.some((one) => one.permissions.includes('audit.read'));
  return PAGES.filter((page) => page.to !== '/audit' || audits);
}

function SchemeSwitch() {
  const { t } = useTranslation();
  const { setColorScheme } = useMantineColorScheme();
  const dark = useComputedColorScheme('dark') === 'dark';
  const label = t(dark ? 'app.toLight' : 'app.toDark');
  return (
    <Tooltip label={label}>
      <ActionIcon
        variant="subtle"
        color="gray"
        aria-label={label}
        data-testid="scheme"
        onClick={() => setColorScheme(dark ? 'light' : 'dark')}
      >
        {dark ? <SunIcon /> : <MoonIcon />}
      </ActionIcon>
    </Tooltip>
  );
}

function UserMenu() {
  const { t } = useTranslation();
  const profile = useQuery({ queryKey: ['profile'], queryFn: getProfile });
  const user = profile.data?.user;
  const pages = usePages();
  return (
    <Menu position="bottom-end" width={180}>
      <Menu.Target>
        <ActionIcon variant="subtle" color="gray" aria-label={t('app.userMenu')} data-testid="user-menu">
          <UserIcon />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>{user?.display_name || user?.username}</Menu.Label>
        <Menu.Item component={Link} to="/profile" data-testid="profile">
          {t('app.profile')}
        </Menu.Item>
        {pages.map(({ to, label }) => (
          <Menu.Item key={to} component={Link} to={to} className={classes.narrowOnly}>
            {t(label)}
          </Menu.Item>
        ))}
        {user?.is_admin && (
          <Menu.Item component={Link} to="/users" data-testid="users">
            {t('app.users')}
          </Menu.Item>
        )}
        {user?.is_admin && (
          <Menu.Item component={Link} to="/groups" data-testid="groups">
            {t('groups.all')}
          </Menu.Item>
        )}
        <Menu.Divider />
        <Menu.Item data-testid="sign-out" onClick={() => void signOut()}>
          {t('app.signOut')}
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
