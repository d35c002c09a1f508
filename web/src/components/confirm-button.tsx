/** A button for what is not undone by another click: it asks once, in place. */
import { Button, Group, Popover, Text } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';

interface Props {
  label: string;
  question: string;
  onConfirm: () => void;
  testId?: string;
  loading?: boolean;
  disabled?: boolean;
}

export function ConfirmButton({ label, question, onConfirm, testId, loading, disabled }: Props) {
  const { t } = useTranslation();
  const [asked, setAsked] = useState(false);
  return (
    <Popover opened={asked} onChange={setAsked} position="bottom-end" withArrow trapFocus shadow="md">
      <Popover.Target>
        <Button
          size="compact-sm"
          variant="default"
          loading={loading ?? false}
          disabled={disabled ?? false}
          data-testid={testId}
          onClick={() => setAsked(!asked)}
        >
          {label}
        </Button>
      </Popover.Target>
      <Popover.Dropdown maw={280}>
        <Text size="sm" mb="xs">
          {question}
        </Text>
        <Group gap="xs" justify="flex-end">
          <Button size="compact-sm" variant="default" onClick={() => setAsked(false)}>
            {t('app.cancel')}
          </Button>
          <Button
            size="compact-sm"
            color="red"
            data-testid={testId && `${testId}-confirm`}
            onClick={() => {
              setAsked(false);
              onConfirm();
            }}
          >
            {label}
          </Button>
        </Group>
      </Popover.Dropdown>
    </Popover>
  );
}
