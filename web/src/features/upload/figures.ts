/** Sizes, rates and durations in the words of the chosen language. */
import { useTranslation } from 'react-i18next';

const UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte'] as const;

/** In steps of 1000, as disks and networks are sold. */
export function scaled(bytes: number): { value: number; unit: (typeof UNITS)[number] } {
  let step = 0;
  let value = bytes;
  while (value >= 999.5 && step < UNITS.length - 1) {
    value /= 1000;
    step += 1;
  }
  return { value, unit: UNITS[step] as (typeof UNITS)[number] };
}

export function useFigures() {
  const { i18n } = useTranslation();
  const number = (value: number, options?: Intl.NumberFormatOptions) =>
    new Intl.NumberFormat(i18n.language, options).format(value);
  const size = (bytes: number) => {
    const { value, unit } = scaled(bytes);
    return number(value, {
      style: 'unit',
      unit,
      unitDisplay: unit === 'byte' ? 'long' : 'short',
      maximumFractionDigits: value < 10 && unit !== 'byte' ? 1 : 0,
    });
  };
  const duration = (seconds: number) => {
    const [value, unit] =
      seconds < 90
        ? [seconds, 'second']
        : seconds < 5400
          ? [seconds / 60, 'minute']
          : [seconds / 3600, 'hour'];
    const digits = unit === 'hour' && (value as number) < 10 ? 1 : 0;
    return number(Math.max(1, value as number), {
      style: 'unit',
      unit: unit as string,
      unitDisplay: 'long',
      maximumFractionDigits: digits,
    });
  };
  return { count: (value: number) => number(value), size, duration };
}
