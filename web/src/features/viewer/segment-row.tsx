/** One segment: choose it to draw on it, show, lock, name and colour it, go to it. */
import { ActionIcon, ColorInput, Popover, TextInput, Tooltip, UnstyledButton } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { EyeIcon, EyeOffIcon, TargetIcon } from '../../components/icons';
import { LockIcon, PencilIcon, UnlockIcon } from './icons';
import type { ShownSegment } from './mask-session';
import classes from './segmentation-panel.module.css';

const MM3_PER_ML = 1000;
const COLOR = /^#[0-9a-f]{6}$/i;

interface Props {
  segment: ShownSegment;
  editable: boolean;
  chosen: boolean;
  onChoose: () => void;
  onChange: (part: Partial<ShownSegment>) => void;
  onDescribe: (part: Partial<ShownSegment>) => void;
  onGoTo: () => void;
}

export function SegmentRow({ segment, editable, chosen, onChoose, onChange, onDescribe, onGoTo }: Props) {
  const { t, i18n } = useTranslation();
  const { visible, locked, label } = segment;
  const volume = segment.volumeMm3 / MM3_PER_ML;
  const digits = volume < 10 ? 2 : volume < 100 ? 1 : 0;
  const value = volume.toLocaleString(i18n.language, {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  const icon = (
    name: string,
    text: string,
    child: React.ReactNode,
    onClick: () => void,
    disabled = false,
  ) => (
    <Tooltip label={text}>
      <ActionIcon
        size="xs"
        variant="subtle"
        color="gray"
        aria-label={text}
        disabled={disabled}
        data-testid={name}
        onClick={onClick}
      >
        {child}
      </ActionIcon>
    </Tooltip>
  );
  return (
    <li className={classes.row} data-chosen={chosen || undefined}>
      {icon(
        'segment-visibility',
        t(visible ? 'segmentation.hide' : 'segmentation.show', { label }),
        visible ? <EyeIcon /> : <EyeOffIcon />,
        () => onChange({ visible: !visible }),
      )}
      <UnstyledButton
        className={classes.segment}
        data-visible={visible}
        aria-pressed={chosen}
        title={t('segmentation.drawOn', { label })}
        data-testid="segment"
        onClick={onChoose}
      >
        <span className={classes.color} style={{ background: segment.color }} />
        <span className={classes.name}>{label}</span>
        <span className={classes.volume}>{t('segmentation.volume', { value })}</span>
      </UnstyledButton>
      {icon('go-to-segment', t('segmentation.goTo', { label }), <TargetIcon />, onGoTo, !visible)}
      {editable &&
        icon(
          'lock-segment',
          t(locked ? 'segmentation.unlock' : 'segmentation.lock', { label }),
          locked ? <LockIcon /> : <UnlockIcon />,
          () => onChange({ locked: !locked }),
        )}
      {editable && <Describe segment={segment} onDescribe={onDescribe} />}
    </li>
  );
}

function Describe({ segment, onDescribe }: { segment: ShownSegment; onDescribe: Props['onDescribe'] }) {
  const { t } = useTranslation();
  const [opened, setOpened] = useState(false);
  const [label, setLabel] = useState(segment.label);
  const [color, setColor] = useState(segment.color);
  const text = t('segmentation.rename', { label: segment.label });
  const close = () => {
    setOpened(false);
    const next = { label: label.trim() || segment.label, color: COLOR.test(color) ? color : segment.color };
    if (next.label !== segment.label || next.color !== segment.color) onDescribe(next);
  };
  return (
    <Popover
      opened={opened}
      onChange={(now) => (now ? setOpened(true) : close())}
      position="bottom-end"
      withArrow
      trapFocus
      shadow="md"
    >
      <Popover.Target>
        <ActionIcon
          size="xs"
          variant="subtle"
          color="gray"
          aria-label={text}
          title={text}
          data-testid="rename-segment"
          onClick={() => {
            setLabel(segment.label);
            setColor(segment.color);
            if (opened) close();
            else setOpened(true);
          }}
        >
          <PencilIcon />
        </ActionIcon>
      </Popover.Target>
      <Popover.Dropdown>
        <TextInput
          size="xs"
          label={t('segmentation.name')}
          data-testid="segment-name"
          maxLength={64}
          value={label}
          onChange={(event) => setLabel(event.currentTarget.value)}
          onKeyDown={(event) => event.key === 'Enter' && close()}
        />
        <ColorInput
          size="xs"
          mt={6}
          label={t('segmentation.color')}
          format="hex"
          withEyeDropper={false}
          popoverProps={{ withinPortal: false }}
          value={color}
          onChange={setColor}
        />
      </Popover.Dropdown>
    </Popover>
  );
}
