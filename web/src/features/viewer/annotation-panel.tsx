/** The annotations of the study: whose, what, in which state; a click goes there. Above them the label for new ones. */
import {
  ActionIcon,
  Badge,
  Group,
  Menu,
  Select,
  Switch,
  Text,
  TextInput,
  Tooltip,
  UnstyledButton,
} from '@mantine/core';
import { useMutation } from '@tanstack/react-query';
import { useMemo, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { type AnnotationStep, type ProjectLabel, stepAnnotation } from '../../api/annotations';
import type { WorkProject } from '../../api/work-project';
import { FailureNotice } from '../../components/failure-notice';
import { useStore } from '../../lib/store';
import { TOOLS } from './actions';
import classes from './annotation-panel.module.css';
import { colorOf, figure, labelName, nameOf } from './annotation-texts';
import { DotsIcon, TrashIcon } from './icons';
import type { ShownAnnotation } from './operations';
import type { Reading } from './reading';

interface Props {
  reading: Reading;
  annotations: readonly ShownAnnotation[];
  error: Error | null;
  isPending: boolean;
  refetch: () => void;
  labels: readonly ProjectLabel[];
  project: WorkProject | null;
  /** "series / slice" where an annotation lies; null where its image is not of this series. */
  sliceOf: (annotation: ShownAnnotation) => number | null;
  onGoTo: (annotation: ShownAnnotation) => void;
}

export function AnnotationPanel(props: Props) {
  const { t, i18n } = useTranslation();
  const { reading, annotations, labels } = props;
  const { selected, label } = useStore(reading.state);
  const [mineOnly, setMineOnly] = useState(false);
  const shown = useMemo(
    () => annotations.filter((one) => !mineOnly || one.created_by === reading.me.id),
    [annotations, mineOnly, reading.me.id],
  );
  return (
    <div className={classes.panel} data-testid="annotations">
      <LabelPicker
        label={t('annotation.newLabel')}
        labels={labels}
        value={label ?? null}
        language={i18n.language}
        onChange={(next) => reading.state.update({ label: next })}
      />
      <Group justify="space-between" px={12} py={6}>
        <Text size="xs" c="dimmed">
          {t('annotation.count', { count: shown.length })}
        </Text>
        <Switch
          size="xs"
          label={t('annotation.mineOnly')}
          checked={mineOnly}
          onChange={(event) => setMineOnly(event.currentTarget.checked)}
        />
      </Group>
      {props.error !== null && (
        <FailureNotice title={t('annotation.failed')} error={props.error} onRetry={props.refetch} />
      )}
      {!props.isPending && props.error === null && shown.length === 0 && (
        <Text size="sm" c="dimmed" px={12} py={4}>
          {t('annotation.none')}
        </Text>
      )}
      <ul className={classes.list}>
        {shown.map((one) => (
          <AnnotationRow
            key={one.id}
            {...props}
            annotation={one}
            chosen={one.id === selected}
            language={i18n.language}
          />
        ))}
      </ul>
    </div>
  );
}

function AnnotationRow(props: Props & { annotation: ShownAnnotation; chosen: boolean; language: string }) {
  const { t } = useTranslation();
  const { reading, annotation, labels, chosen, language } = props;
  const name = labelName(annotation.label, labels, language);
  const type = TOOLS.some((one) => one.name === annotation.geometry.type)
    ? t(`viewer.tool.${annotation.geometry.type}`)
    : annotation.kind;
  const slice = props.sliceOf(annotation);
  const main = annotation.measurements.find((one) => one.source === 'server');
  const mine = annotation.created_by === reading.me.id;
  const title = name || annotation.description || type;
  return (
    <li className={classes.item} data-chosen={chosen || undefined} data-testid="annotation">
      <div className={classes.row}>
        <UnstyledButton
          className={classes.main}
          aria-pressed={chosen}
          onClick={() => {
            reading.state.update({ selected: annotation.id });
            props.onGoTo(annotation);
          }}
        >
          <span className={classes.color} style={{ background: colorOf(annotation.label, labels) }} />
          <span className={classes.name}>{title}</span>
          {main && (
            <span className={classes.value} data-testid="measured">
              {figure(main.value, main.unit, language)}
            </span>
          )}
          <span className={classes.detail}>
            {[
              title !== type && type,
              slice !== null && t('annotation.slice', { slice: slice + 1 }),
              mine ? t('annotation.mine') : annotation.author,
            ]
              .filter(Boolean)
              .join(' · ')}
          </span>
        </UnstyledButton>
        {annotation.pending ? (
          <Badge size="xs" variant="outline" color={annotation.refused ? 'red' : 'gray'}>
            {t(annotation.refused ? 'annotation.refused' : 'annotation.pending')}
          </Badge>
        ) : (
          annotation.state !== 'draft' && (
            <Badge size="xs" variant="light" color={annotation.state === 'approved' ? 'teal' : 'gray'}>
              {t(`segmentation.state.${annotation.state}`)}
            </Badge>
          )
        )}
        <Tooltip label={t('annotation.delete')}>
          <ActionIcon
            size="sm"
            variant="subtle"
            color="gray"
            aria-label={`${t('annotation.delete')}: ${title}`}
            data-testid="delete-annotation"
            onClick={() => reading.remove(annotation.id)}
          >
            <TrashIcon />
          </ActionIcon>
        </Tooltip>
        <Steps reading={reading} annotation={annotation} project={props.project} onDone={props.refetch} />
      </div>
      {chosen && (
        <div className={classes.edit}>
          <LabelPicker
            label={t('annotation.label')}
            labels={labels}
            value={annotation.label}
            language={language}
            onChange={(next) => reading.edit(annotation.id, { label: next })}
          />
          <DescriptionField key={annotation.id} annotation={annotation} reading={reading} />
        </div>
      )}
    </li>
  );
}

function DescriptionField({ annotation, reading }: { annotation: ShownAnnotation; reading: Reading }) {
  const { t } = useTranslation();
  const [text, setText] = useState(annotation.description);
  const keep = () => {
    if (text !== annotation.description) reading.edit(annotation.id, { description: text });
  };
  return (
    <TextInput
      size="xs"
      px={12}
      label={t('annotation.text')}
      data-testid="annotation-text"
      maxLength={10_000}
      value={text}
      autoFocus={annotation.geometry.type === 'arrow' && annotation.description === ''}
      onChange={(event) => setText(event.currentTarget.value)}
      onBlur={keep}
      onKeyDown={(event) => {
        if (event.key === 'Enter') event.currentTarget.blur();
      }}
    />
  );
}

/** Of the project's set; without one any words. */
function LabelPicker(props: {
  label: string;
  labels: readonly ProjectLabel[];
  value: ShownAnnotation['label'];
  language: string;
  onChange: (label: ShownAnnotation['label']) => void;
}) {
  const { labels, value, language } = props;
  const [text, setText] = useState<string | null>(null);
  if (labels.length === 0) {
    const stands = labelName(value, labels, language);
    const keep = () => {
      if (text !== null && text.trim() !== stands) props.onChange(text.trim() || null);
      setText(null);
    };
    return (
      <TextInput
        size="xs"
        px={12}
        label={props.label}
        data-testid="label-text"
        maxLength={200}
        value={text ?? stands}
        onChange={(event) => setText(event.currentTarget.value)}
        onBlur={keep}
        onKeyDown={(event) => {
          if (event.key === 'Enter') event.currentTarget.blur();
        }}
      />
    );
  }
  return (
    <Select
      size="xs"
      px={12}
      label={props.label}
      data-testid="label-picker"
      searchable
      clearable
      data={labels.map((one) => ({ value: one.value, label: nameOf(one, language) }))}
      value={typeof value === 'string' ? value : (value?.value ?? null)}
      onChange={(code) => {
        const found = labels.find((one) => one.value === code);
        props.onChange(found ? { value: found.value, scheme: found.scheme, meaning: found.meaning } : null);
      }}
    />
  );
}

const STEPS_OF: Record<ShownAnnotation['state'], readonly AnnotationStep[]> = {
  draft: ['submit'],
  submitted: ['approve', 'reject', 'reopen'],
  approved: ['reopen'],
  rejected: ['reopen'],
};

function Steps(props: {
  reading: Reading;
  annotation: ShownAnnotation;
  project: WorkProject | null;
  onDone: () => void;
}) {
  const { t } = useTranslation();
  const { annotation, project } = props;
  const step = useMutation({
    mutationFn: (name: AnnotationStep) => stepAnnotation(annotation.id, annotation.version, name),
    onSettled: props.onDone,
  });
  const reviews = project?.permissions.includes('review') ?? false;
  const steps = STEPS_OF[annotation.state].filter((one) => one === 'submit' || one === 'reopen' || reviews);
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <ActionIcon
          size="sm"
          variant="subtle"
          color={step.error === null ? 'gray' : 'red'}
          aria-label={t('annotation.more')}
          disabled={annotation.pending}
          loading={step.isPending}
        >
          <DotsIcon />
        </ActionIcon>
      </Menu.Target>
      <Menu.Dropdown>
        {step.error !== null && <Menu.Label c="red">{step.error.message}</Menu.Label>}
        {steps.map((one) => (
          <Menu.Item key={one} onClick={() => step.mutate(one)}>
            {t(`annotation.step.${one}`)}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}
