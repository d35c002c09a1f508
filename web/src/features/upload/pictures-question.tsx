/** Pictures say nothing of their place: where no form was given before, it is asked for here. */
import { Button, Group, Text } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { faultsOf, formOf, NO_GEOMETRY } from './geometry';
import { GeometryFieldset } from './geometry-fields';
import classes from './upload.module.css';
import { answerForm } from './uploading';

export function PicturesQuestion({ count }: { count: number }) {
  const { t } = useTranslation();
  const [fields, setFields] = useState(NO_GEOMETRY);
  const [tried, setTried] = useState(false);
  const faults = faultsOf(fields, true);
  return (
    <section
      className={classes.question}
      data-testid="pictures-question"
      aria-label={t('upload.geometry.title')}
    >
      <form
        onSubmit={(event) => {
          event.preventDefault();
          setTried(true);
          if (Object.keys(faults).length === 0) answerForm(formOf(fields));
        }}
      >
        <Text size="sm" fw={600}>
          {t('upload.geometry.asked', { count })}
        </Text>
        <Text size="xs" c="dimmed" mb="xs">
          {t('upload.geometry.why')}
        </Text>
        <GeometryFieldset fields={fields} faults={tried ? faults : {}} onChange={setFields} />
        <Group gap="xs" mt="sm">
          <Button type="submit" size="compact-sm" data-testid="geometry-send">
            {t('upload.geometry.send')}
          </Button>
          <Button
            size="compact-sm"
            variant="default"
            onClick={() => answerForm(null)}
            data-testid="geometry-leave-out"
          >
            {t('upload.geometry.leaveOut')}
          </Button>
        </Group>
      </form>
    </section>
  );
}
