import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  plugins: [react()],
  define: { 'process.env': {} },
  // Two versions of these would be two themes and two of each hook.
  resolve: { dedupe: ['react', 'react-dom', '@grafana/data', '@grafana/schema'] },
  build: { minify: false, reportCompressedSize: false, chunkSizeWarningLimit: 1e5 },
});
