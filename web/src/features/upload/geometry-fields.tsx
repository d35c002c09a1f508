/** What pictures do not say of themselves: asked before, or when a drop holds pictures. */
import { Checkbox, Select, TextInput } from '@mantine/core';
import { useTranslation } from 'react-i18next';
import { type Faults, type GeometryFields, MODALITIES, ORIENTATIONS } from './geometry';
import classes from './upload.module.css';

interface Props {
  fields: GeometryFields;
  faults: Faults;
  onChange: (fields: GeometryFields) => void;
}

export function GeometryFieldset({ fields, faults, onChange }: Props) {
  const { t } = useTranslation();
  const put = (part: Partial<GeometryFields>) => onChange({ ...fields, ...part });
  const text = (name: 'rowMm' | 'columnMm' | 'sliceMm' | 'slope' | 'intercept', placeholder: string) => (
    <TextInput
      size="xs"
      inputMode="decimal"
      label={t(`upload.geometry.${name}`)}
      placeholder={placeholder}
      value={fields[name]}
      error={faults[name] ? t('upload.geometry.notANumber') : null}
      data-testid={`geometry-${name}`}
      onChange={(event) => put({ [name]: event.currentTarget.value })}
    />
  );
  return (
    <fieldset className={classes.geometry} data-testid="geometry">
      <legend className="visually-hidden">{t('upload.geometry.title')}</legend>
      <Select
        size="xs"
        clearable
        label={t('upload.geometry.modality')}
        placeholder={t('upload.geometry.unsaid')}
        data={[...MODALITIES]}
        value={fields.modality}
        data-testid="geometry-modality"
        onChange={(modality) => put({ modality })}
      />
      <Select
        size="xs"
        allowDeselect={false}
        label={t('upload.geometry.orientation')}
        data={ORIENTATIONS.map((value) => ({ value, label: t(`upload.geometry.${value}`) }))}
        value={fields.orientation}
        onChange={(orientation) => put({ orientation: orientation ?? 'axial' })}
      />
      {text('rowMm', '0.5')}
      {text('columnMm', '0.5')}
      {text('sliceMm', '1')}
      {text('slope', '1')}
      {text('intercept', '0')}
      <Checkbox
        size="xs"
        className={classes.reversed}
        label={t('upload.geometry.reversed')}
        checked={fields.reversed}
        onChange={(event) => put({ reversed: event.currentTarget.checked })}
      />
    </fieldset>
  );
}
