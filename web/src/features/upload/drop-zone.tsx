/** Where files come in: dropped, or chosen with a button or a key. */
import { Button, Text } from '@mantine/core';
import { useHotkeys } from '@mantine/hooks';
import { type DragEvent, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { UploadIcon } from '../../components/icons';
import { canPickFolders, pickFolder, type Source, sourceOfDrop, sourceOfFiles } from './gather';
import classes from './upload.module.css';

interface Props {
  onGiven: (source: Source) => void;
  title: string;
  hint: string;
  disabled?: boolean;
  /** One zone of a page listens to the keys. */
  keys?: boolean;
}

export function DropZone({ onGiven, title, hint, disabled = false, keys = false }: Props) {
  const { t } = useTranslation();
  const [over, setOver] = useState(false);
  const folderField = useRef<HTMLInputElement>(null);
  const filesField = useRef<HTMLInputElement>(null);
  const chooseFolder = () => {
    if (disabled) return;
    if (!canPickFolders()) folderField.current?.click();
    else void pickFolder().then((source) => source && onGiven(source));
  };
  const chooseFiles = () => !disabled && filesField.current?.click();
  useHotkeys(
    keys
      ? [
          ['o', chooseFolder],
          ['f', chooseFiles],
        ]
      : [],
  );
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    if (!disabled) void sourceOfDrop(event.dataTransfer).then(onGiven);
  };
  const take = (field: HTMLInputElement) => {
    if (field.files !== null && field.files.length > 0) onGiven(sourceOfFiles(field.files));
    field.value = '';
  };
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the buttons in it do the same for who cannot drag
    <div
      className={classes.zone}
      data-over={over || undefined}
      data-testid="drop-zone"
      onDragEnter={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragOver={(event) => {
        event.preventDefault();
        event.dataTransfer.dropEffect = disabled ? 'none' : 'copy';
      }}
      onDragLeave={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget as Node | null)) setOver(false);
      }}
      onDrop={drop}
    >
      <UploadIcon />
      <Text fw={600}>{title}</Text>
      <Text size="sm" c="dimmed" maw={620}>
        {hint}
      </Text>
      <div className={classes.choices}>
        <Button size="sm" disabled={disabled} onClick={chooseFolder} data-testid="choose-folder">
          {t('upload.chooseFolder')}
        </Button>
        <Button
          size="sm"
          variant="default"
          disabled={disabled}
          onClick={chooseFiles}
          data-testid="choose-files"
        >
          {t('upload.chooseFiles')}
        </Button>
      </div>
      <input
        ref={folderField}
        type="file"
        multiple
        hidden
        data-testid="folder-field"
        aria-label={t('upload.chooseFolder')}
        {...{ webkitdirectory: '' }}
        onChange={(event) => take(event.currentTarget)}
      />
      <input
        ref={filesField}
        type="file"
        multiple
        hidden
        data-testid="files-field"
        aria-label={t('upload.chooseFiles')}
        onChange={(event) => take(event.currentTarget)}
      />
    </div>
  );
}
