/** Key presses of the viewer, from the same objects as its buttons. */
import { useEffect } from 'react';
import { isTyping, shortcutOf } from '../../lib/shortcut';
import { COMMANDS, type Context, TOOLS, windowPresets } from './actions';

export function useShortcuts(context: Context | null, modality: string): void {
  useEffect(() => {
    if (context === null) return;
    const press = (event: KeyboardEvent) => {
      if (event.defaultPrevented || isTyping(event.target, event.key)) return;
      const shortcut = shortcutOf(event);
      const command = COMMANDS.find((one) => one.shortcuts.includes(shortcut));
      const tool = TOOLS.find((one) => one.shortcut === shortcut);
      const preset = /^[1-9]$/.test(shortcut) ? windowPresets(modality)[Number(shortcut) - 1] : undefined;
      if (command !== undefined) command.run(context);
      else if (tool !== undefined) context.reading.state.update({ tool: tool.name });
      else if (preset !== undefined) context.view.setWindow(preset.window);
      else return;
      event.preventDefault();
    };
    window.addEventListener('keydown', press);
    return () => window.removeEventListener('keydown', press);
  }, [context, modality]);
}
