/** What went wrong, in one calm box, with a way to try again where there is one. */
import { Button, Text } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import classes from './failure-notice.module.css';

interface Props {
  title: string;
  error: Error;
  onRetry?: () => void;
  testId?: string;
}

export function FailureNotice({ title, error, onRetry, testId }: Props) {
  const { t } = useTranslation();
  return (
    <div className={classes.notice} role="alert" data-testid={testId}>
      <div>
        <Text size="sm" fw={600}>
          {title}
        </Text>
        <Text size="xs" c="dimmed">
          {error.message}
        </Text>
      </div>
      {onRetry && (
        <Button size="compact-xs" variant="default" onClick={onRetry}>
          {t('app.retry')}
        </Button>
      )}
    </div>
  );
}
