import { defineConfig } from 'vitest/config'

/** Unit tests stand beside the code; `RUBATO_TEST` chooses the rest (see Makefile). */
const suites: Record<string, string[]> = {
  unit: ['{agent,coordinator,shared,installer,test}/**/*.test.ts'],
  real: ['test/{integration,e2e}/**/*.real.ts'],
}
const suite = process.env.RUBATO_TEST ?? 'unit'

export default defineConfig({
  test: {
    root: new URL('..', import.meta.url).pathname,
    include: suites[suite] ?? [suite],
    exclude: ['node_modules/**', 'dist/**'],
    pool: 'forks',
    // Real test beds share one kernel and two cores: one file at a time.
    fileParallelism: suite === 'unit',
    testTimeout: suite === 'unit' ? 30_000 : 300_000,
    hookTimeout: suite === 'unit' ? 30_000 : 600_000,
  },
})
