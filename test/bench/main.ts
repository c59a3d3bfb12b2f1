/**
 * `make bench` (`ONLY=area`): measures what we claim, prints a table, writes bench-report.json. A figure with a peer is a ratio to
 * that peer in the same run, alternating, medians over several rounds; absolute figures say what machine they are from.
 */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import type { BenchResult } from './result.ts'

const ROOT = join(import.meta.dirname, '..', '..')

/** Area → what measures it. Loaded only when chosen: each brings its own test bed. */
const AREAS: Readonly<Record<string, () => Promise<readonly BenchResult[]>>> = {
  link: async () => (await import('./link.bench.ts')).benchLink(),
  catalog: async () => (await import('./link.bench.ts')).benchCatalog(),
  agent: async () => (await import('./agent.bench.ts')).benchAgent(),
  gateway: async () => [
    ...(await (await import('./authorize.bench.ts')).benchAuthorize()),
    ...(await (await import('./gateway.bench.ts')).benchGateway()),
  ],
  forecast: async () => (await import('./forecast.bench.ts')).benchForecast(),
  scaling: async () => [
    ...(await import('./scaling-rule.bench.ts')).benchScalingRule(),
    ...(await (await import('./scaling-tick.ts')).benchScalingTick()),
  ],
  history: async () => (await import('./history.bench.ts')).benchHistory(),
  placement: async () => (await import('./placement.bench.ts')).benchPlacement(),
  fleet: async () => (await import('./fleet.bench.ts')).benchFleet(),
  deploy: async () => (await import('./agent.bench.ts')).benchDeploy(),
  reaction: async () => (await import('./reaction.bench.ts')).benchReaction(),
  elasticity: async () => (await import('./elasticity.bench.ts')).benchElasticity(),
}

const only = process.env.ONLY?.split(',').filter(Boolean) ?? Object.keys(AREAS)
const unknown = only.filter((area) => !(area in AREAS))
if (unknown.length > 0) {
  process.stderr.write(`ONLY=${unknown.join(',')}: the areas are ${Object.keys(AREAS).join(', ')}\n`)
  process.exit(2)
}

const run = {
  machine: `${cpus().length} × ${cpus()[0]?.model ?? '?'}, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
  date: new Date().toISOString(),
  commit: commit(),
}
const results: BenchResult[] = []
let failed = false
for (const area of only) {
  process.stderr.write(`measuring ${area} …\n`)
  try {
    results.push(...((await AREAS[area]?.()) ?? []))
  } catch (error) {
    failed = true
    process.stderr.write(`${area} failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  }
}
writeFileSync(
  join(ROOT, 'bench-report.json'),
  `${JSON.stringify(
    results.map((result) => ({ ...result, run })),
    null,
    2,
  )}\n`,
)
process.stdout.write(table(results))
process.stdout.write(`${run.machine}, commit ${run.commit}; written to bench-report.json\n`)
process.exit(failed ? 1 : 0)

function table(rows: readonly BenchResult[]): string {
  const lines = [['name', 'value', 'unit', 'target', 'met', 'peer']]
  for (const row of rows) {
    const met =
      row.target === null ? '–' : (row.better === 'higher' ? row.value >= row.target : row.value <= row.target) ? 'yes' : 'NO'
    lines.push([
      row.name,
      format(row.value),
      row.unit,
      row.target === null ? '–' : `${row.better === 'higher' ? '≥' : '≤'} ${format(row.target)}`,
      met,
      row.peer ?? '',
    ])
  }
  const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...lines.map((line) => (line[column] ?? '').length)))
  return lines
    .map(
      (line) =>
        `${line
          .map((cell, column) => cell.padEnd(widths[column] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('')
}

function format(value: number): string {
  return Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(2)
}

function commit(): string {
  try {
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: ROOT, encoding: 'utf8' }).trim()
  } catch {
    return 'unknown'
  }
}
