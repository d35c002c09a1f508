/** One stack viewport behind a small surface of our own: what the page may ask of the rendering engine. */
import * as core from '@cornerstonejs/core';
import * as tools from '@cornerstonejs/tools';
import { contrastRange } from '../../lib/contrast-range';
import type { SeriesImages } from './series-images';

export type ToolName = 'window' | 'pan' | 'zoom' | 'scroll';

export interface ViewState {
  sliceIndex: number;
  sliceCount: number;
  window: { width: number; center: number } | null;
}

export interface PixelProbe {
  column: number;
  row: number;
  value: number;
}

const TOOL_NAMES: Record<ToolName, string> = {
  window: tools.WindowLevelTool.toolName,
  pan: tools.PanTool.toolName,
  zoom: tools.ZoomTool.toolName,
  scroll: tools.StackScrollTool.toolName,
};
const { MouseBindings } = tools.Enums;
const { Events } = core.Enums;

let count = 0;

export class StackView {
  readonly viewportId: string;
  private readonly engine: core.RenderingEngine;
  private readonly toolGroupId: string;
  private readonly resize: ResizeObserver;
  private images: SeriesImages | null = null;

  constructor(
    private readonly element: HTMLDivElement,
    private readonly onChange: (state: ViewState) => void,
    private readonly onImageFailed: () => void,
  ) {
    count += 1;
    this.viewportId = `stack-${count}`;
    this.toolGroupId = `tools-${count}`;
    this.engine = new core.RenderingEngine(`engine-${count}`);
    this.engine.enableElement({
      viewportId: this.viewportId,
      type: core.Enums.ViewportType.STACK,
      element,
      defaultOptions: { background: [0, 0, 0] },
    });
    this.addTools();
    element.addEventListener(Events.STACK_NEW_IMAGE, this.report);
    element.addEventListener(Events.VOI_MODIFIED, this.report);
    core.eventTarget.addEventListener(Events.IMAGE_LOAD_ERROR, this.onImageFailed);
    this.resize = new ResizeObserver(() => this.engine.resize(true, true));
    this.resize.observe(element);
  }

  async show(images: SeriesImages, sliceIndex: number): Promise<void> {
    this.images = images;
    await this.viewport.setStack(images.imageIds, sliceIndex);
    // Without a window in the header the engine would choose anew for each slice: one for all is chosen here.
    if (!images.hasWindow) this.viewport.setProperties({ voiRange: this.contrastRange() });
    this.viewport.render();
    this.report();
  }

  async goTo(sliceIndex: number): Promise<void> {
    const last = (this.images?.imageIds.length ?? 1) - 1;
    await this.viewport.setImageIdIndex(Math.min(Math.max(sliceIndex, 0), last));
  }

  step(slices: number): void {
    void this.goTo(this.viewport.getCurrentImageIdIndex() + slices);
  }

  setTool(name: ToolName): void {
    const group = tools.ToolGroupManager.getToolGroup(this.toolGroupId);
    for (const tool of Object.values(TOOL_NAMES)) group?.setToolPassive(tool, { removeAllBindings: true });
    bindMouse(group, name);
  }

  /** In modality units; null gives back what the image itself says. */
  setWindow(window: { width: number; center: number } | null): void {
    if (window === null) {
      this.viewport.resetProperties();
      if (this.images?.hasWindow === false) this.viewport.setProperties({ voiRange: this.contrastRange() });
    } else {
      const lower = window.center - window.width / 2;
      this.viewport.setProperties({ voiRange: { lower, upper: lower + window.width } });
    }
    this.viewport.render();
    this.report();
  }

  reset(): void {
    this.viewport.resetCamera();
    this.setWindow(null);
  }

  /** The pixel under a point of the page, in modality units. */
  probe(clientX: number, clientY: number): PixelProbe | null {
    const imageId = this.viewport.getCurrentImageId();
    const image = imageId ? core.cache.getImage(imageId) : undefined;
    if (image === undefined || image.color) return null;
    const box = this.element.getBoundingClientRect();
    const world = this.viewport.canvasToWorld([clientX - box.left, clientY - box.top]);
    const point = core.utilities.worldToImageCoords(image.imageId, world);
    if (!point) return null;
    const column = Math.floor(point[0]);
    const row = Math.floor(point[1]);
    if (column < 0 || row < 0 || column >= image.columns || row >= image.rows) return null;
    const stored = image.getPixelData()[row * image.columns + column] ?? 0;
    const value = image.preScale?.scaled ? stored : stored * (image.slope ?? 1) + (image.intercept ?? 0);
    return { column, row, value };
  }

  render(): void {
    this.viewport.render();
  }

  destroy(): void {
    this.resize.disconnect();
    this.element.removeEventListener(Events.STACK_NEW_IMAGE, this.report);
    this.element.removeEventListener(Events.VOI_MODIFIED, this.report);
    core.eventTarget.removeEventListener(Events.IMAGE_LOAD_ERROR, this.onImageFailed);
    tools.ToolGroupManager.destroyToolGroup(this.toolGroupId);
    this.engine.destroy();
  }

  private get viewport(): core.Types.IStackViewport {
    return this.engine.getViewport(this.viewportId) as core.Types.IStackViewport;
  }

  private contrastRange(): { lower: number; upper: number } | undefined {
    const image = core.cache.getImage(this.viewport.getCurrentImageId());
    return image === undefined || image.color ? undefined : contrastRange(image.getPixelData());
  }

  private addTools(): void {
    const group = tools.ToolGroupManager.createToolGroup(this.toolGroupId);
    if (group === undefined) throw new Error('tool group exists already');
    for (const name of Object.values(TOOL_NAMES)) group.addTool(name);
    group.addViewport(this.viewportId, this.engine.id);
    bindMouse(group, 'window');
  }

  private readonly report = (): void => {
    const range = this.viewport.getProperties().voiRange;
    this.onChange({
      sliceIndex: this.viewport.getCurrentImageIdIndex(),
      sliceCount: this.images?.imageIds.length ?? 0,
      window: range ? { width: range.upper - range.lower, center: (range.upper + range.lower) / 2 } : null,
    });
  };
}

/** Left button: the chosen tool. Middle pans, right zooms, the wheel scrolls, whatever is chosen. */
function bindMouse(group: tools.Types.IToolGroup | undefined, chosen: ToolName): void {
  const bindings = new Map<ToolName, { mouseButton: number }[]>([
    ['pan', [{ mouseButton: MouseBindings.Auxiliary }]],
    ['zoom', [{ mouseButton: MouseBindings.Secondary }]],
    ['scroll', [{ mouseButton: MouseBindings.Wheel }]],
  ]);
  bindings.set(chosen, [...(bindings.get(chosen) ?? []), { mouseButton: MouseBindings.Primary }]);
  for (const [name, given] of bindings) group?.setToolActive(TOOL_NAMES[name], { bindings: given });
}
