/** Colours and sizes: calm, dense, dark first. */
import { createTheme, type MantineColorsTuple } from '@mantine/core';

const slate: MantineColorsTuple = [
  '#dfe6ec',
  '#b9c5d0',
  '#98a7b5',
  '#748595',
  '#3c4a57',
  '#2a3540',
  '#1f2832',
  '#161d25',
  '#10161c',
  '#0a0e12',
];
const teal: MantineColorsTuple = [
  '#e0faf4',
  '#c3f1e6',
  '#93e3d0',
  '#5fd3b8',
  '#38c4a3',
  '#20b595',
  '#10957a',
  '#0b7c66',
  '#086352',
  '#034a3d',
];

export const theme = createTheme({
  colors: { dark: slate, teal },
  primaryColor: 'teal',
  primaryShade: 7, // lighter ones do not carry white text
  defaultRadius: 'sm',
  fontFamily: '"Inter", "Pretendard", "Noto Sans KR", "Noto Sans CJK KR", system-ui, sans-serif',
  fontSizes: { xs: '0.72rem', sm: '0.81rem', md: '0.875rem', lg: '1rem', xl: '1.15rem' },
  cursorType: 'pointer',
});
