/** The icons of the viewer's tools, drawn like those of `components/icons`. */
import { Icon } from '../../components/icons';

const path = (d: string) => () => (
  <Icon>
    <path d={d} />
  </Icon>
);

export const LengthIcon = path('M4.5 19.5l15-15M3 16l5 5M16 3l5 5');
export const AngleIcon = path('M20 19H4L15 5M10.5 11a8 8 0 0 1 3.2 8');
export const BidirectionalIcon = path('M4 20 20 4M9 9l6.5 6.5');
export const RectangleIcon = path('M4 6h16v12H4Z');
export const EllipseIcon = () => (
  <Icon>
    <ellipse cx="12" cy="12" rx="8.5" ry="6" />
  </Icon>
);
export const PolygonIcon = path('M12 3.5 20.5 10 17 20H7L3.5 10Z');
export const FreehandIcon = path('M5 17c-3-6 2-13 8-12s8 7 5 11-6 0-8 1-3 2-5 0Z');
export const ArrowIcon = path('M5 19 19 5M10 5h9v9');
export const ProbeIcon = path('M12 3v6M12 15v6M3 12h6M15 12h6M12 12h.01');
export const BrushIcon = path('M20 4c-5 2-9 6-11 9l2 2c3-2 7-6 9-11ZM8 14c-3 0-3 4-5 5 3 2 7 1 7-3');
export const EraserIcon = path('M8.5 19.5h11M4 14 14 4l6 6-9.5 9.5h-3Z');
export const ThresholdIcon = path('M3 19h18M5 19v-4M9 19V9M13 19V5M17 19v-8M3 12h3M18 12h3');
export const FillIcon = path('M10 4 3.5 10.5 11 18l7-7-8-8M20.5 14c1.5 2 1.5 4 0 4s-1.5-2 0-4Z');
export const InvertIcon = path('M4 4h16v16H4ZM4 20 20 4v16Z');
export const PlayIcon = path('M7 5v14l12-7Z');
export const PauseIcon = path('M8 5v14M16 5v14');
export const UndoIcon = path('M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-4');
export const RedoIcon = path('m15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h4');
export const HelpIcon = path(
  'M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.2-1.5 2.4M12 17.5h.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Z',
);
export const TrashIcon = path('M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5');
export const LockIcon = path('M6 11h12v9H6ZM8.5 11V8a3.5 3.5 0 0 1 7 0v3');
export const UnlockIcon = path('M6 11h12v9H6ZM8.5 11V8a3.5 3.5 0 0 1 6.8-1.2');
export const PlusIcon = path('M12 5v14M5 12h14');
export const TextIcon = path('M5 6h14M12 6v13M9 19h6');
export const ShapesIcon = path('M4 4h8v8H4ZM16 11a5 5 0 1 1-4 8');
export const PencilIcon = path('M4 20l1-4L16 5l3 3L8 19Z');
export const HistoryIcon = path('M4 12a8 8 0 1 0 2.5-5.8M4 4v4.5h4.5M12 8v4.5l3 2');
export const DotsIcon = path('M5 12h1M11.5 12h1M18 12h1');
