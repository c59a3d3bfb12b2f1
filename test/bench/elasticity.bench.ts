/**
 * `make bench ONLY=elasticity TRACES=dir`: every trace × every policy × boot times of 30 to 1,800 s. The HPA rule runs at a target
 * of 70 %, and again at the target that gives it our machine-hours, found by bisection with the trace in hand: a peer tuned in
 * hindsight. The two names compare, trace by trace and boot time by boot time, with whichever of the two is the stronger, the one
 * less under-provisioned. Writes elasticity-report.md.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { elasticSpeedup, type ElasticityMetrics, geometricMean } from '../../coordinator/simulate/elasticity-metrics.ts'
import type { Policy } from '../../coordinator/simulate/policy.ts'
import { POLICIES } from '../../coordinator/simulate/policies.ts'
import { hpa } from '../../coordinator/simulate/policies/kubernetes.ts'
import { type RunSetup, runPolicy } from '../../coordinator/simulate/run.ts'
import { parseTrace } from '../../coordinator/simulate/trace.ts'
import { benchQueueWorker } from './elasticity-worker.ts'
import { P99_INSTANCES, MEASURED_DAYS, setupFor } from './elasticity-setup.ts'
import type { BenchResult } from './result.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const BOOTS_S = [30, 90, 240, 1800]
/** Percent of the time; less than 36 s a day in either is as good as none, and no ratio is made of it. */
const FLOOR = 0.05
const LEAST_TARGET = 15
const TARGET_STEP = 0.5

interface Row {
  readonly trace: string
  readonly bootS: number
  readonly title: string
  readonly metrics: ElasticityMetrics
}

interface Cell {
  readonly trace: string
  readonly bootS: number
  readonly ours: ElasticityMetrics
  readonly usual: ElasticityMetrics
  readonly matched: ElasticityMetrics
  readonly target: number
}

export async function benchElasticity(): Promise<readonly BenchResult[]> {
  const directory = resolve(process.env.TRACES ?? join(ROOT, '..', 'shared', 'data', 'traces'))
  const files = existsSync(directory)
    ? readdirSync(directory)
        .filter((name) => name.endsWith('.csv'))
        .sort()
    : []
  if (files.length === 0)
    process.stderr.write(`elasticity: no trace (*.csv with timestamp,value) in ${directory}; name a directory with TRACES=\n`)
  const rows: Row[] = []
  const cells: Cell[] = []
  for (const file of files) {
    // A gap of hours in a count means that nothing was asked for (closed, or down): said in the report.
    const trace = parseTrace(readFileSync(join(directory, file), 'utf8'), { name: file, gaps: 'zero' })
    for (const bootS of BOOTS_S) {
      process.stderr.write(`elasticity: ${file}, boot ${bootS} s …\n`)
      const setup = setupFor(trace, bootS * 1000)
      const measured = new Map<string, ElasticityMetrics>()
      for (const policy of POLICIES) {
        const { metrics } = runPolicy(policy, setup)
        measured.set(policy.id, metrics)
        rows.push({ trace: file, bootS, title: policy.title, metrics })
      }
      const ours = measured.get('rubato') as ElasticityMetrics
      const usual = measured.get('hpa') as ElasticityMetrics
      const { target, metrics } = matchedHpa(setup, ours.machineHours)
      rows.push({ trace: file, bootS, title: `HPA at ${target} % (our machine-hours)`, metrics })
      cells.push({ trace: file, bootS, ours, usual, matched: metrics, target })
    }
  }
  const worker = benchQueueWorker()
  const results = [...(cells.length > 0 ? ratios(cells) : []), ...worker.results]
  const report = join(ROOT, 'elasticity-report.md')
  writeFileSync(report, markdown(rows, cells, worker.markdown))
  process.stdout.write(summary(cells))
  process.stdout.write(`every trace × policy: ${report}\n`)
  return results
}

/** The HPA rule at the highest target that still takes at least our machine-hours; of two neighbours the better one for it. */
function matchedHpa(setup: RunSetup, machineHours: number): { readonly target: number; readonly metrics: ElasticityMetrics } {
  const known = new Map<number, ElasticityMetrics>()
  const at = (target: number): ElasticityMetrics => {
    const metrics = known.get(target) ?? runPolicy(hpa(target) satisfies Policy, setup).metrics
    known.set(target, metrics)
    return metrics
  }
  let low = LEAST_TARGET
  let high = 100
  while (high - low > TARGET_STEP) {
    const middle = Math.round((low + high) / 2 / TARGET_STEP) * TARGET_STEP
    if (middle <= low || middle >= high) break
    if (at(middle).machineHours >= machineHours) low = middle
    else high = middle
  }
  const target = at(low).underTime <= at(high).underTime ? low : high
  return { target, metrics: at(target) }
}

const strongerOf = ({ usual, matched }: Cell): ElasticityMetrics => (matched.underTime <= usual.underTime ? matched : usual)
const floored = (percent: number) => Math.max(FLOOR, percent)
const timeRatio = (cell: Cell) => floored(cell.ours.underTime) / floored(strongerOf(cell).underTime)

function ratios(cells: readonly Cell[]): readonly BenchResult[] {
  const mean = (value: (cell: Cell) => number) => geometricMean(cells.map(value))
  const time = mean(timeRatio)
  const hours = mean((cell) => cell.ours.machineHours / strongerOf(cell).machineHours)
  const peer = (pick: (cell: Cell) => ElasticityMetrics) =>
    `${mean((cell) => floored(cell.ours.underTime) / floored(pick(cell).underTime)).toFixed(2)} × its time under, ${mean((cell) => cell.ours.machineHours / pick(cell).machineHours).toFixed(2)} × its machine-hours`
  const both = `HPA at 70 %: ${peer(({ usual }) => usual)}; at our machine-hours: ${peer(({ matched }) => matched)}; ${cells.length} cells, floor ${FLOOR} %`
  return [
    {
      name: 'elasticity.underprovisioned_time_vs_hpa',
      value: time,
      unit: '×',
      better: 'lower',
      target: 0.5,
      peer: both,
      ratio: time,
    },
    { name: 'elasticity.machine_hours_vs_hpa', value: hours, unit: '×', better: 'lower', target: 1, peer: both, ratio: hours },
  ]
}

function summary(cells: readonly Cell[]): string {
  if (cells.length === 0) return ''
  const byTrace = Map.groupBy(cells, ({ trace }) => trace)
  const lines = [...byTrace].map(([trace, own]) => {
    const parts = own.map((cell) => `${cell.bootS} s ${timeRatio(cell).toFixed(2)}`)
    return `${trace.padEnd(34)} ${geometricMean(own.map(timeRatio)).toFixed(2)} (${parts.join(', ')})`
  })
  return `time under-provisioned, Rubato / the stronger HPA, per trace (by boot time):\n${lines.join('\n')}\n`
}

function markdown(rows: readonly Row[], cells: readonly Cell[], worker: string): string {
  const lost = cells.filter((cell) => timeRatio(cell) > 1)
  const missed = cells.filter((cell) => timeRatio(cell) > 0.5 && timeRatio(cell) <= 1)
  const name = ({ trace, bootS }: Cell) => `${trace} at ${bootS} s`
  const parts = [
    '# Elasticity: every trace, policy and boot time',
    '',
    `Demand scaled so that its 99th percentile is ${P99_INSTANCES} instances' worth; linear between the steps, with Poisson noise; gaps count as 0. The first third (all but the last ${MEASURED_DAYS} days where that is more) is history. Machines hold four instances; an instance starts in 10 s. Formulae and their sources: docs/elasticity.md.`,
    '',
  ]
  if (cells.length > 0)
    parts.push(
      '## Time under-provisioned against the HPA rule',
      '',
      `| trace | boot | Rubato τ_U % | machine-hours | HPA 70 % τ_U | its hours | matched target | τ_U | its hours | ratio to the stronger |`,
      '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
      ...cells.map((cell) => {
        const { ours, usual, matched, target } = cell
        return `| ${cell.trace} | ${cell.bootS} s | ${two(ours.underTime)} | ${ours.machineHours.toFixed(0)} | ${two(usual.underTime)} | ${usual.machineHours.toFixed(0)} | ${target} % | ${two(matched.underTime)} | ${matched.machineHours.toFixed(0)} | ${two(timeRatio(cell))} |`
      }),
      '',
      `Lost (ratio above 1): ${lost.length === 0 ? 'nowhere' : lost.map(name).join('; ')}.`,
      '',
      `Between half and equal: ${missed.length === 0 ? 'nowhere' : missed.map(name).join('; ')}. Where both are below the floor of ${FLOOR} % the ratio is 1.`,
      '',
    )
  for (const [trace, own] of Map.groupBy(rows, (row) => row.trace)) {
    parts.push(
      `## ${trace}`,
      '',
      '| boot | policy | θ_U % | θ_O % | τ_U % | τ_O % | υ % | jitter /h | speedup over fixed | late % | failed % | machine-hours | USD | steps /h |',
      '|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
    )
    for (const { bootS, title, metrics: m } of own) {
      const fixed = own.find((row) => row.bootS === bootS && row.title.startsWith('fixed for the 99th'))?.metrics ?? m
      parts.push(
        `| ${bootS} s | ${title} | ${two(m.underAmount)} | ${one(m.overAmount)} | ${two(m.underTime)} | ${one(m.overTime)} | ${one(m.instability)} | ${one(m.jitter)} | ${two(elasticSpeedup(fixed, m))} | ${two(m.beyondObjective)} | ${two(m.failed)} | ${m.machineHours.toFixed(0)} | ${two(m.costUsd)} | ${one(m.actionsPerHour)} |`,
      )
    }
    parts.push('')
  }
  return `${[...parts, worker].join('\n')}\n`
}

const one = (value: number) => value.toFixed(1)
const two = (value: number) => value.toFixed(2)
