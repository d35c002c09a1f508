/** The frame of the pages before one is signed in: one card in the middle, the language below. */
import { Paper, Stack, Text, Title } from '@mantine/core';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { LanguageSwitch } from '../../components/language-switch';
import classes from './card-page.module.css';

export function CardPage({ title, children }: { title?: string; children: ReactNode }) {
  const { t } = useTranslation();
  return (
    <main className={classes.page}>
      <Paper className={classes.card} withBorder shadow="md" p="xl">
        <Stack gap="md">
          <div className={classes.head}>
            <img src="/favicon.svg" alt="" width={36} height={36} />
            <div>
              <Title order={1} size="h3">
                {title ?? 'Annotomy'}
              </Title>
              <Text size="sm" c="dimmed">
                {title ? 'Annotomy' : t('signIn.tagline')}
              </Text>
            </div>
          </div>
          {children}
        </Stack>
      </Paper>
      <LanguageSwitch />
    </main>
  );
}
