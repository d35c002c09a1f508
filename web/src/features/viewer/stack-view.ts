/** One stack viewport behind a small surface of our own: what the page may ask of the rendering engine. */
import * as core from '@cornerstonejs/core';
import * as tools from '@cornerstonejs/tools';
import { type Affine, affineOf, apply, inverse, type Point } from '../../lib/affine';
import { contrastRange } from '../../lib/contrast-range';
import type { SeriesImages } from './series-images';

/** What the engine does with the left button; everything else is drawn by us and takes it from the engine. */
export type EngineTool = 'window' | 'pan' | 'zoom' | 'scroll';

export interface ViewState {
  sliceIndex: number;
  sliceCount: number;
  window: { width: number; center: number } | null;
  inverted: boolean;
}

/** How the shown image lies on the screen, and in the patient. */
export interface Placement {
  sliceIndex: number;
  columns: number;
  rows: number;
  /** From pixels, (0, 0) at the corner of the first one, to CSS pixels of the viewport. */
  toScreen: Affine;
  spacing: { columnMm: number; rowMm: number } | null;
  /** Directions of growing column and row in LPS; null where the image has no place in a patient. */
  orientation: readonly number[] | null;
}

export interface PixelProbe {
  column: number;
  row: number;
  value: number;
}

const TOOL_NAMES: Record<EngineTool, string> = {
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
  private readonly drawnListeners = new Set<() => void>();

  constructor(
    private readonly element: HTMLDivElement,
    private readonly onChange: (state: ViewState) => void,
    private readonly onImage: (failed: boolean) => void,
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
    element.addEventListener(Events.STACK_NEW_IMAGE, this.shown);
    element.addEventListener(Events.VOI_MODIFIED, this.report);
    element.addEventListener(Events.IMAGE_RENDERED, this.tellDrawn);
    core.eventTarget.addEventListener(Events.IMAGE_LOAD_ERROR, this.failed);
    this.resize = new ResizeObserver(() => this.engine.resize(true, true));
    this.resize.observe(element);
  }

  async show(images: SeriesImages, sliceIndex: number): Promise<void> {
    if (this.images !== null) tools.utilities.stackPrefetch.disable(this.element);
    this.images = images;
    await this.viewport.setStack(images.imageIds, sliceIndex);
    // Without a window in the header the engine would choose anew for each slice: one for all is chosen here.
    if (!images.hasWindow) this.viewport.setProperties({ voiRange: this.contrastRange() });
    this.viewport.render();
    this.report();
    // The rest of the stack comes behind: scrolling waits for nothing then, and goes on without a network.
    tools.utilities.stackPrefetch.enable(this.element);
  }

  async goTo(sliceIndex: number): Promise<void> {
    const last = (this.images?.imageIds.length ?? 1) - 1;
    // An image that cannot be loaded is told by the event above, as one that the engine itself asks for.
    await this.viewport.setImageIdIndex(Math.min(Math.max(sliceIndex, 0), last)).catch(() => undefined);
  }

  step(slices: number): void {
    void this.goTo(this.viewport.getCurrentImageIdIndex() + slices);
  }

  get sliceIndex(): number {
    return this.viewport.getCurrentImageIdIndex();
  }

  /** Calls back after each drawing: what lies over the image follows it. */
  onDrawn(listener: () => void): () => void {
    this.drawnListeners.add(listener);
    return () => this.drawnListeners.delete(listener);
  }

  /** Null until an image is shown. */
  placement(): Placement | null {
    const data = this.images === null ? null : this.viewport.getImageData();
    if (!data) return null;
    const [columns, rows] = data.dimensions;
    const at = (column: number, row: number): Point => {
      // Voxel centres are whole numbers to the engine; our pixels begin at their corner.
      const [x, y, z] = [column - 0.5, row - 0.5, 0];
      const { direction: d, spacing: s, origin: o } = data;
      const world = [0, 1, 2].map(
        (axis) =>
          (o[axis] ?? 0) +
          x * (s[0] ?? 1) * (d[axis] ?? 0) +
          y * (s[1] ?? 1) * (d[3 + axis] ?? 0) +
          z * (s[2] ?? 1) * (d[6 + axis] ?? 0),
      );
      const [screenX, screenY] = this.viewport.worldToCanvas(world as core.Types.Point3);
      return [screenX, screenY];
    };
    const place = this.images?.places[this.sliceIndex] ?? null;
    return {
      sliceIndex: this.sliceIndex,
      columns,
      rows,
      toScreen: affineOf(at(0, 0), at(1, 0), at(0, 1)),
      spacing: place?.spacing ?? null,
      orientation: place?.orientation ?? null,
    };
  }

  /** The shown image's values in modality units; null for colour. */
  values(): { columns: number; rows: number; at: (index: number) => number } | null {
    const image = core.cache.getImage(this.viewport.getCurrentImageId());
    if (image === undefined || image.color) return null;
    const pixels = image.getPixelData();
    const scaled = image.preScale?.scaled === true;
    const [slope, intercept] = scaled ? [1, 0] : [image.slope ?? 1, image.intercept ?? 0];
    return {
      columns: image.columns,
      rows: image.rows,
      at: (index) => (pixels[index] ?? 0) * slope + intercept,
    };
  }

  /** What is shown between black and white, in modality units. */
  windowRange(): { lower: number; upper: number } | null {
    return this.viewport.getProperties().voiRange ?? null;
  }

  invert(): void {
    this.viewport.setProperties({ invert: !this.viewport.getProperties().invert });
    this.viewport.render();
    this.report();
  }

  /** Above 1 comes nearer. */
  zoomBy(factor: number): void {
    this.viewport.setZoom(this.viewport.getZoom() * factor);
    this.viewport.render();
  }

  panBy(right: number, down: number): void {
    const [x, y] = this.viewport.getPan();
    this.viewport.setPan([x + right, y + down]);
    this.viewport.render();
  }

  /** Null: the left button is ours. */
  setTool(name: EngineTool | null): void {
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
    if (this.viewport.getProperties().invert) this.viewport.setProperties({ invert: false });
    this.setWindow(null);
  }

  /** Where a point of the page lies on the image, in pixels; also beside it. */
  pixelAt(clientX: number, clientY: number): Point | null {
    const placement = this.placement();
    const back = placement && inverse(placement.toScreen);
    if (!back) return null;
    const box = this.element.getBoundingClientRect();
    return apply(back, [clientX - box.left, clientY - box.top]);
  }

  /** The pixel under a point of the page, in modality units. */
  probe(clientX: number, clientY: number): PixelProbe | null {
    const point = this.pixelAt(clientX, clientY);
    const values = this.values();
    if (point === null || values === null) return null;
    const [column, row] = [Math.floor(point[0]), Math.floor(point[1])];
    if (column < 0 || row < 0 || column >= values.columns || row >= values.rows) return null;
    return { column, row, value: values.at(row * values.columns + column) };
  }

  render(): void {
    this.viewport.render();
  }

  destroy(): void {
    tools.utilities.stackPrefetch.disable(this.element);
    this.resize.disconnect();
    this.element.removeEventListener(Events.STACK_NEW_IMAGE, this.shown);
    this.element.removeEventListener(Events.VOI_MODIFIED, this.report);
    this.element.removeEventListener(Events.IMAGE_RENDERED, this.tellDrawn);
    core.eventTarget.removeEventListener(Events.IMAGE_LOAD_ERROR, this.failed);
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

  private readonly tellDrawn = (): void => {
    for (const listener of this.drawnListeners) listener();
  };

  private readonly shown = (): void => {
    this.onImage(false);
    this.report();
  };

  /** Of an image that is fetched ahead nothing is told: it is asked for again when somebody goes there. */
  private readonly failed = (event: Event): void => {
    const { imageId } = (event as CustomEvent<{ imageId?: string }>).detail ?? {};
    if (imageId === this.images?.imageIds[this.sliceIndex]) this.onImage(true);
  };

  private readonly report = (): void => {
    const range = this.viewport.getProperties().voiRange;
    this.onChange({
      sliceIndex: this.viewport.getCurrentImageIdIndex(),
      sliceCount: this.images?.imageIds.length ?? 0,
      window: range ? { width: range.upper - range.lower, center: (range.upper + range.lower) / 2 } : null,
      inverted: this.viewport.getProperties().invert ?? false,
    });
  };
}

/** Left button: the chosen tool. Middle pans, right zooms, the wheel scrolls, whatever is chosen. */
function bindMouse(group: tools.Types.IToolGroup | undefined, chosen: EngineTool | null): void {
  const bindings = new Map<EngineTool, { mouseButton: number }[]>([
    ['pan', [{ mouseButton: MouseBindings.Auxiliary }]],
    ['zoom', [{ mouseButton: MouseBindings.Secondary }]],
    ['scroll', [{ mouseButton: MouseBindings.Wheel }]],
  ]);
  if (chosen !== null)
    bindings.set(chosen, [...(bindings.get(chosen) ?? []), { mouseButton: MouseBindings.Primary }]);
  for (const [name, given] of bindings) group?.setToolActive(TOOL_NAMES[name], { bindings: given });
}
