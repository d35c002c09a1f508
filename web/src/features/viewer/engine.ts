/** Starts Cornerstone once; every pixel request carries the bearer token. Only this folder knows the rendering engine. */
import * as core from '@cornerstonejs/core';
import { init as initLoader } from '@cornerstonejs/dicom-image-loader';
import * as tools from '@cornerstonejs/tools';
import { currentAccessToken, ensureSignedIn } from '../../api/session';

const DECODE_WORKERS = 2;
/** Decoded pixels that stay in memory; a 512-slice CT needs a quarter of it. */
const CACHE_LIMIT_BYTES = 1 << 30;

let started: Promise<void> | null = null;

export const hasWebGl2 = document.createElement('canvas').getContext('webgl2') !== null;

export function startEngine(): Promise<void> {
  started ??= start();
  return started;
}

async function start(): Promise<void> {
  core.init();
  if (!hasWebGl2) core.setUseCPURendering(true);
  core.cache.setMaxCacheSize(CACHE_LIMIT_BYTES);
  tools.init();
  initLoader({
    maxWebWorkers: DECODE_WORKERS,
    beforeSend: async () => {
      await ensureSignedIn();
      return { Authorization: `Bearer ${currentAccessToken() ?? ''}` };
    },
  });
  for (const tool of [tools.WindowLevelTool, tools.PanTool, tools.ZoomTool, tools.StackScrollTool])
    tools.addTool(tool);
}
