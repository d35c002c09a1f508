/** Starts Cornerstone once; every pixel request carries the bearer token. Only this folder knows the rendering engine. */
import * as core from '@cornerstonejs/core';
import { init as initLoader } from '@cornerstonejs/dicom-image-loader';
import * as tools from '@cornerstonejs/tools';
import { currentAccessToken, ensureSignedIn } from '../../api/session';

const DECODE_WORKERS = 2;
/** Decoded pixels that stay in memory; a 512-slice CT needs a quarter of it. */
const CACHE_LIMIT_BYTES = 1 << 30;

/** Around the shown image: a whole head or abdomen, and a fraction of what the cache holds. */
const MOST_FETCHED_AHEAD = 400;

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
  tools.utilities.stackPrefetch.setConfiguration({
    maxImagesToPrefetch: MOST_FETCHED_AHEAD,
    preserveExistingPool: true,
  });
  window.addEventListener('unhandledrejection', (event) => {
    // The loader leaves a copy of its promise to itself; the failure is told by IMAGE_LOAD_ERROR.
    if (event.reason instanceof XMLHttpRequest) event.preventDefault();
  });
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
