/** The audit for who may read it: records with filters and export, and the monthly review. */
import { Alert, Button, Group, Tabs, Title } from '@mantine/core';
import { useMutation, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { getMe, verifyAudit } from '../../api/audit';
import { FailureNotice } from '../../components/failure-notice';
import classes from './audit.module.css';
import { AuditRecords } from './audit-records';
import { AuditReviews } from './audit-reviews';

export function AuditPage() {
  const { t } = useTranslation();
  const [tab, setTab] = useState<string | null>('records');
  const me = useQuery({ queryKey: ['me'], queryFn: getMe });
  const verifying = useMutation({ mutationFn: verifyAudit });
  /** Reviews and the chain are about the whole log; who audits single projects sees their records alone. */
  const whole = me.data?.is_admin || (me.data?.global_roles.length ?? 0) > 0;
  return (
    <div className={classes.page}>
      <div className={classes.column}>
        <Group justify="space-between">
          <Title order={1} size="h3">
            {t('audit.title')}
          </Title>
          {whole && (
            <Button
              size="compact-sm"
              variant="default"
              loading={verifying.isPending}
              data-testid="verify-audit"
              onClick={() => verifying.mutate()}
            >
              {t('audit.verify')}
            </Button>
          )}
        </Group>
        {verifying.error !== null && <FailureNotice title={t('audit.failed')} error={verifying.error} />}
        {verifying.data && (
          <Alert
            color={verifying.data.valid ? 'teal' : 'red'}
            variant="light"
            role="status"
            data-testid="audit-verdict"
          >
            {verifying.data.valid
              ? t('audit.valid', { count: verifying.data.records })
              : t('audit.broken', { place: String(verifying.data.first_bad) })}
          </Alert>
        )}
        <Tabs value={tab} onChange={setTab}>
          <Tabs.List mb="md">
            <Tabs.Tab value="records">{t('audit.records')}</Tabs.Tab>
            {whole && (
              <Tabs.Tab value="reviews" data-testid="tab-reviews">
                {t('audit.reviews')}
              </Tabs.Tab>
            )}
          </Tabs.List>
          <Tabs.Panel value="records">
            <AuditRecords projects={me.data?.projects ?? []} />
          </Tabs.Panel>
          <Tabs.Panel value="reviews">{whole && <AuditReviews />}</Tabs.Panel>
        </Tabs>
      </div>
    </div>
  );
}
