import react from '@vitejs/plugin-react';
import { defineConfig, loadEnv } from 'vite';

const backend = loadEnv('', '.', 'ANNOTOMY_').ANNOTOMY_BACKEND ?? 'http://127.0.0.1:8000';

export default defineConfig({
  plugins: [react()],
  worker: { format: 'es' },
  build: {
    target: 'es2022',
    // The first versions that know light-dark() themselves; its replacement would need a class of ours on the root.
    cssTarget: ['chrome123', 'firefox120', 'safari17.5'],
    outDir: '../src/annotomy/static/app',
    emptyOutDir: true,
    chunkSizeWarningLimit: 5000,
  },
  optimizeDeps: {
    // The optimizer would move the loader away from its worker, and images would then never resolve.
    exclude: ['@cornerstonejs/dicom-image-loader'],
    include: [
      'dicom-parser',
      '@cornerstonejs/codec-openjpeg/decodewasmjs',
      '@cornerstonejs/codec-charls/decodewasmjs',
      '@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs',
      '@cornerstonejs/codec-openjph/wasmjs',
      '@cornerstonejs/jpeg-lossless-decoder-js',
    ],
  },
  server: { proxy: { '/api': backend, '/dicom-web': backend, '/ohif': backend } },
});
