/** A small picture of one image, drawn by the engine without the GPU. */
import { utilities } from '@cornerstonejs/core';

const SIZE_PX = 96;

export async function thumbnailOf(imageId: string): Promise<string> {
  const canvas = document.createElement('canvas');
  canvas.width = SIZE_PX;
  canvas.height = SIZE_PX;
  await utilities.loadImageToCanvas({
    canvas,
    imageId,
    thumbnail: true,
    imageAspect: false,
    useCPURendering: true,
  });
  return canvas.toDataURL('image/png');
}
