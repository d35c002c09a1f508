/** A titled part of a settings page, and the failure of an action in it. */
import { Alert, Paper, Text, Title } from '@mantine/core';
import type { ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { failureText } from './failure-text';
import classes from './settings-page.module.css';
import { StepUpDeclined } from './step-up';

interface Props {
  title: string;
  hint?: string;
  action?: ReactNode;
  error?: Error | null;
  children?: ReactNode;
}

export function Section({ title, hint, action, error, children }: Props) {
  const { t } = useTranslation();
  return (
    <Paper component="section" withBorder p="md">
      <div className={classes.sectionHead}>
        <div>
          <Title order={2} size="h5">
            {title}
          </Title>
          {hint && (
            <Text size="xs" c="dimmed">
              {hint}
            </Text>
          )}
        </div>
        {action}
      </div>
      {error && !(error instanceof StepUpDeclined) && (
        <Alert color="red" variant="light" role="alert" mt="sm" data-testid="section-error">
          {failureText(error, t)}
        </Alert>
      )}
      {children}
    </Paper>
  );
}
