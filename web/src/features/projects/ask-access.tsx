/** The address of a project that one does not see: it may be there or not, and one can ask. */
import { Alert, Button, SegmentedControl, Stack, Text, Textarea, TextInput } from '@mantine/core';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { askForAccess, type NewAccessRequest } from '../../api/projects';
import { Section } from '../../components/section';
import { endOfDay } from '../../lib/day';
import classes from './projects.module.css';

const SCOPES = ['read_only', 'limited', 'full'] as const;

export function AskAccess({ projectId }: { projectId: string }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [reason, setReason] = useState('');
  const [scope, setScope] = useState<NonNullable<NewAccessRequest['scope']>>('read_only');
  const [until, setUntil] = useState('');
  const asking = useMutation({
    mutationFn: () => askForAccess({ project_id: projectId, reason, scope, until: endOfDay(until) }),
    onSuccess: () => client.invalidateQueries({ queryKey: ['access-requests'] }),
  });
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <Section title={t('requests.denied')} hint={t('requests.deniedHint')} error={asking.error}>
          {asking.isSuccess ? (
            <Alert color="teal" variant="light" mt="sm" data-testid="asked">
              {t('requests.asked')}
            </Alert>
          ) : (
            <form
              onSubmit={(event) => {
                event.preventDefault();
                asking.mutate();
              }}
            >
              <Stack gap="sm" mt="sm" align="flex-start">
                <SegmentedControl
                  aria-label={t('requests.scope')}
                  value={scope}
                  onChange={(value) => setScope(value as typeof scope)}
                  data={SCOPES.map((value) => ({ value, label: t(`requests.scopes.${value}`) }))}
                />
                <Text size="xs" c="dimmed">
                  {t(`requests.scopeHints.${scope}`)}
                </Text>
                <Textarea
                  label={t('requests.reason')}
                  w="100%"
                  autosize
                  minRows={3}
                  maxLength={2000}
                  value={reason}
                  data-testid="ask-reason"
                  onChange={(event) => setReason(event.currentTarget.value)}
                />
                <TextInput
                  type="date"
                  label={t('requests.until')}
                  w={180}
                  value={until}
                  onChange={(event) => setUntil(event.currentTarget.value)}
                />
                <Button
                  type="submit"
                  disabled={!reason.trim()}
                  loading={asking.isPending}
                  data-testid="ask-access"
                >
                  {t('requests.ask')}
                </Button>
              </Stack>
            </form>
          )}
        </Section>
      </div>
    </div>
  );
}
