/** The review of each month: a report that a person looks through and signs. */
import { Alert, Badge, Button, Group, Loader, Modal, Table, Text, Textarea } from '@mantine/core';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { type ReactNode, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { getReview, listReviews, type Report, type Review, signReview } from '../../api/audit';
import { FailureNotice } from '../../components/failure-notice';
import { Section } from '../../components/section';
import { useDay } from '../../lib/day';
import classes from './audit.module.css';

export function AuditReviews() {
  const { t } = useTranslation();
  const day = useDay();
  const reviews = useQuery({ queryKey: ['audit-reviews'], queryFn: listReviews });
  const [month, setMonth] = useState<string | null>(null);
  return (
    <Section title={t('audit.reviews')} hint={t('audit.reviewsHint')} error={reviews.error}>
      {reviews.isLoading && <Loader size="sm" mt="sm" aria-label={t('audit.loading')} />}
      {reviews.data?.length === 0 && (
        <Text size="sm" c="dimmed" mt="xs" data-testid="no-reviews">
          {t('audit.noReviews')}
        </Text>
      )}
      {reviews.data?.map((review) => (
        <div key={review.month} className={classes.line} data-testid="review">
          <div>
            <Text size="sm" fw={500}>
              {review.month}
            </Text>
            <Text size="xs" c="dimmed">
              {review.signed_by === null
                ? t('audit.made', { day: day(review.made_at) })
                : t('audit.signedBy', {
                    name: review.signed_by,
                    day: day(review.signed_at ?? review.made_at),
                  })}
            </Text>
          </div>
          <Group gap="xs">
            <Badge variant="light" tt="none" color={review.signed_by === null ? 'yellow' : 'teal'}>
              {t(review.signed_by === null ? 'audit.unsigned' : 'audit.signed')}
            </Badge>
            <Button size="compact-sm" variant="default" onClick={() => setMonth(review.month)}>
              {t('audit.read')}
            </Button>
          </Group>
        </div>
      ))}
      {month !== null && <ReviewDialog month={month} onClose={() => setMonth(null)} />}
    </Section>
  );
}

function ReviewDialog({ month, onClose }: { month: string; onClose: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [note, setNote] = useState('');
  const review = useQuery({ queryKey: ['audit-review', month], queryFn: () => getReview(month) });
  const signing = useMutation({
    mutationFn: () => signReview(month, note),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ['audit-reviews'] });
      onClose();
    },
  });
  const error = review.error ?? signing.error;
  return (
    <Modal opened onClose={onClose} size="xl" title={t('audit.reviewOf', { month })}>
      {error !== null && <FailureNotice title={t('audit.failed')} error={error} />}
      {review.isLoading && <Loader size="sm" aria-label={t('audit.loading')} />}
      {review.data?.report && <ReportTables report={review.data.report} />}
      {review.data && <SignaturePart review={review.data} note={note} onNote={setNote} />}
      {review.data?.signed_by === null && (
        <Group justify="flex-end" mt="sm">
          <Button loading={signing.isPending} data-testid="sign-review" onClick={() => signing.mutate()}>
            {t('audit.sign')}
          </Button>
        </Group>
      )}
    </Modal>
  );
}

function SignaturePart({
  review,
  note,
  onNote,
}: {
  review: Review;
  note: string;
  onNote: (note: string) => void;
}) {
  const { t } = useTranslation();
  if (review.signed_by !== null)
    return (
      <Text size="sm" mt="md">
        {review.note || t('audit.noNote')}
      </Text>
    );
  return (
    <Textarea
      mt="md"
      label={t('audit.note')}
      autosize
      minRows={2}
      maxLength={2000}
      value={note}
      onChange={(event) => onNote(event.currentTarget.value)}
    />
  );
}

function ReportTables({ report }: { report: Report }) {
  const { t } = useTranslation();
  const day = useDay();
  const head = (...names: string[]) => names.map((name) => t(`audit.columns.${name}`));
  return (
    <>
      <Text size="sm" c="dimmed">
        {t('audit.recordCount', { count: report.records })}
      </Text>
      {report.cut.length > 0 && (
        <Alert color="yellow" variant="light" my="xs">
          {t('audit.cut')}
        </Alert>
      )}
      <Lines
        title={t('audit.parts.people')}
        head={head('who', 'reads', 'downloads', 'exports', 'patients', 'refused')}
        rows={report.people.map((one) => [
          one.actor,
          one.reads,
          one.downloads,
          one.exports,
          one.patients,
          one.refused,
        ])}
      />
      <Lines
        title={t('audit.parts.off_hours')}
        head={head('who', 'day', 'records', 'patients')}
        rows={report.off_hours.map((one) => [one.actor, one.day, one.records, one.patients])}
      />
      <Lines
        title={t('audit.parts.bulk')}
        head={head('who', 'day', 'studies', 'downloads')}
        rows={report.bulk.map((one) => [one.actor, one.day, one.studies, one.downloads])}
      />
      <Lines
        title={t('audit.parts.failed_sign_ins')}
        head={head('account', 'from', 'attempts', 'last')}
        rows={report.failed_sign_ins.map((one) => [one.user_id, one.source, one.attempts, day(one.last_at)])}
      />
      <Lines
        title={t('audit.parts.rights_changes')}
        head={head('when', 'who', 'action', 'object')}
        rows={report.rights_changes.map((one) => [day(one.at), one.actor, one.action, one.object.id])}
      />
      <Lines
        title={t('audit.parts.exports')}
        head={head('when', 'who', 'action', 'reason')}
        rows={report.exports.map((one) => [day(one.at), one.actor, one.action, one.reason])}
      />
    </>
  );
}

function Lines({ title, head, rows }: { title: string; head: string[]; rows: ReactNode[][] }) {
  const { t } = useTranslation();
  return (
    <>
      <Text fw={600} size="sm" mt="md">
        {title}
      </Text>
      {rows.length === 0 ? (
        <Text size="xs" c="dimmed">
          {t('audit.nothing')}
        </Text>
      ) : (
        <Table fz="xs" verticalSpacing={3}>
          <Table.Thead>
            <Table.Tr>
              {head.map((name) => (
                <Table.Th key={name}>{name}</Table.Th>
              ))}
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {rows.map((row, index) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: a report does not change
              <Table.Tr key={index}>
                {row.map((value, column) => (
                  <Table.Td key={head[column]} className={classes.small}>
                    {value}
                  </Table.Td>
                ))}
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      )}
    </>
  );
}
