/**
 * `make bench ONLY=elasticity TRACES=dir`: every trace × every policy × boot times of 30 to 1,800 s. The HPA rule runs at a target
 * of 70 %, and again at the target that gives it our machine-hours, found by bisection with the trace in hand: a peer tuned in
 * hindsight. The two names compare, trace by trace and boot time by boot time, with whichever of the two is the stronger, the one
 * less under-provisioned. Writes elasticity-report.md. Settings, all by environment: TRACES (a directory, or `generated:SEED` for series
 * drawn from models), SEEDS, BOOTS (seconds), PEAK (instances), PER_MACHINE, BRIEF=1 (Rubato and HPA alone).
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { elasticSpeedup, type ElasticityMetrics, geometricMean } from '../../coordinator/simulate/elasticity-metrics.ts'
import { parseTrace, type Trace } from '../../coordinator/simulate/trace.ts'
import { InputError } from '../../shared/errors.ts'
import type { Cell, CellJob } from './elasticity-cell.ts'
import { measureCells } from './elasticity-crew.ts'
import { DEFAULT_SCALE, MEASURED_DAYS, type Scale } from './elasticity-setup.ts'
import { benchQueueWorker } from './elasticity-worker.ts'
import type { BenchResult } from './result.ts'
import { modelSeries } from './series-models.ts'

const ROOT = join(import.meta.dirname, '..', '..')
/** Percent of the time; less than 43 s a day in either is as good as none, and no ratio is made of it. */
const FLOOR = 0.05
const GENERATED = 'generated:'

interface Settings {
  readonly source: string
  readonly seeds: readonly number[]
  readonly boots: readonly number[]
  readonly scale: Scale
  readonly isBrief: boolean
}

interface Refused {
  readonly file: string
  readonly why: string
}

export async function benchElasticity(): Promise<readonly BenchResult[]> {
  const settings = settingsOf(process.env)
  const { traces, refused } = readSource(settings.source)
  const jobs = settings.seeds.flatMap((seed) =>
    traces.flatMap((trace) =>
      settings.boots.map(
        (bootS): CellJob => ({
          trace,
          bootS,
          seed,
          scale: settings.scale,
          isBrief: settings.isBrief || seed !== settings.seeds[0],
        }),
      ),
    ),
  )
  const startedMs = performance.now()
  let done = 0
  const outcomes = await measureCells(jobs, (outcome) => {
    done += 1
    const { job, tookMs } = outcome
    const leftS = ((performance.now() - startedMs) / 1000 / done) * (jobs.length - done)
    const what =
      'cell' in outcome
        ? `${two(outcome.cell.ours.underTime)} % of the time too few, HPA ${two(strongerOf(outcome.cell).underTime)} %`
        : `failed: ${outcome.error.split('\n', 1)[0]}`
    process.stderr.write(
      `elasticity: ${done} of ${jobs.length}: ${job.trace.name}, boot ${job.bootS} s: ${what} (${(tookMs / 1000).toFixed(0)} s; about ${Math.ceil(leftS / 60)} min left)\n`,
    )
  })
  const cells = outcomes.flatMap((outcome) => ('cell' in outcome ? [outcome.cell] : []))
  const failures = [
    ...refused,
    ...outcomes.flatMap((outcome) =>
      'error' in outcome ? [{ file: `${outcome.job.trace.name}, boot ${outcome.job.bootS} s`, why: outcome.error }] : [],
    ),
  ]
  const worker = benchQueueWorker()
  const results = [...(cells.length > 0 ? ratios(cells) : []), ...worker.results]
  const report = join(ROOT, 'elasticity-report.md')
  writeFileSync(report, markdown(settings, cells, failures, worker.markdown))
  process.stdout.write(summary(cells))
  for (const { file, why } of failures) process.stdout.write(`left out: ${file}: ${why}\n`)
  process.stdout.write(`every trace × policy: ${report}\n`)
  return results
}

function settingsOf(env: NodeJS.ProcessEnv): Settings {
  const numbers = (name: string, usual: readonly number[]): readonly number[] => {
    const text = env[name]
    if (text === undefined || text === '') return usual
    const values = text.split(',').map(Number)
    if (values.some((value) => !Number.isFinite(value) || value <= 0))
      throw new InputError(`${name}=${text}`, [
        { path: name, message: 'is no list of positive numbers', hint: `like ${name}=${usual.join(',')}` },
      ])
    return values
  }
  const one = (name: string, usual: number) => numbers(name, [usual])[0] ?? usual
  const source = env.TRACES ?? join(ROOT, '..', 'shared', 'data', 'traces')
  return {
    source: source.startsWith(GENERATED) ? source : resolve(source),
    seeds: numbers('SEEDS', [7]),
    boots: numbers('BOOTS', [30, 90, 240, 1800]),
    scale: { peak: one('PEAK', DEFAULT_SCALE.peak), perMachine: Math.ceil(one('PER_MACHINE', DEFAULT_SCALE.perMachine)) },
    isBrief: env.BRIEF === '1',
  }
}

/** A file that cannot be read as a series is left out and named; the others are measured. */
function readSource(source: string): { readonly traces: readonly Trace[]; readonly refused: readonly Refused[] } {
  const texts = source.startsWith(GENERATED)
    ? modelSeries(Number(source.slice(GENERATED.length)) || 1).map(({ name, csv }) => ({ name, read: () => csv }))
    : csvFiles(source).map((name) => ({ name, read: () => readFileSync(join(source, name), 'utf8') }))
  if (texts.length === 0)
    process.stderr.write(`elasticity: no trace (*.csv with timestamp,value) in ${source}; name a directory with TRACES=\n`)
  const traces: Trace[] = []
  const refused: Refused[] = []
  for (const { name, read } of texts) {
    try {
      // A gap of hours in a count means that nothing was asked for (closed, or down): said in the report.
      traces.push(parseTrace(read(), { name, gaps: 'zero' }))
    } catch (error) {
      const why =
        error instanceof InputError
          ? error.faults.map(({ line, message, hint }) => `line ${line} ${message} (${hint})`).join('; ')
          : String(error)
      refused.push({ file: name, why })
      process.stderr.write(`elasticity: ${name} is left out: ${why}\n`)
    }
  }
  return { traces, refused }
}

function csvFiles(directory: string): readonly string[] {
  if (!existsSync(directory)) return []
  return readdirSync(directory)
    .filter((name) => /\.csv$/i.test(name))
    .sort()
}

const strongerOf = ({ usual, matched }: Cell): ElasticityMetrics => (matched.underTime <= usual.underTime ? matched : usual)
const floored = (percent: number) => Math.max(FLOOR, percent)
const isUnderFloor = (cell: Cell) => Math.max(cell.ours.underTime, strongerOf(cell).underTime) <= FLOOR
const timeRatio = (cell: Cell) => floored(cell.ours.underTime) / floored(strongerOf(cell).underTime)

function ratios(cells: readonly Cell[]): readonly BenchResult[] {
  const mean = (value: (cell: Cell) => number) => geometricMean(cells.map(value))
  const time = mean(timeRatio)
  const hours = mean((cell) => cell.ours.machineHours / strongerOf(cell).machineHours)
  const peer = (pick: (cell: Cell) => ElasticityMetrics) =>
    `${mean((cell) => floored(cell.ours.underTime) / floored(pick(cell).underTime)).toFixed(2)} × its time under, ${mean((cell) => cell.ours.machineHours / pick(cell).machineHours).toFixed(2)} × its machine-hours`
  const seeds = [...Map.groupBy(cells, ({ seed }) => seed).values()].map((own) => geometricMean(own.map(timeRatio)))
  const spread = seeds.length < 2 ? '' : `; ${seeds.length} seeds: ${two(Math.min(...seeds))}–${two(Math.max(...seeds))}`
  const both = `HPA at 70 %: ${peer(({ usual }) => usual)}; at our machine-hours: ${peer(({ matched }) => matched)}; ${cells.length} cells, ${cells.filter(isUnderFloor).length} of them under the floor of ${FLOOR} % on both sides${spread}`
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
    ...whereShort(cells.filter((cell) => !isUnderFloor(cell))),
    { name: 'elasticity.machine_hours_vs_hpa', value: hours, unit: '×', better: 'lower', target: 1, peer: both, ratio: hours },
  ]
}

/** The same without the pairs that say nothing, as neither side is ever short; beside the figure that counts them as 1, not in its place. */
function whereShort(cells: readonly Cell[]): readonly BenchResult[] {
  if (cells.length === 0) return []
  const value = geometricMean(cells.map(timeRatio))
  const peer = `the ${cells.length} cells in which either is short for more than ${FLOOR} % of the time`
  return [
    {
      name: 'elasticity.underprovisioned_time_vs_hpa_where_short',
      value,
      unit: '×',
      better: 'lower',
      target: null,
      peer,
      ratio: value,
    },
  ]
}

function summary(cells: readonly Cell[]): string {
  if (cells.length === 0) return ''
  const byTrace = Map.groupBy(cells, ({ trace }) => trace)
  const lines = [...byTrace].map(([trace, own]) => {
    const parts = [...Map.groupBy(own, ({ bootS }) => bootS)].map(
      ([bootS, same]) => `${bootS} s ${geometricMean(same.map(timeRatio)).toFixed(2)}`,
    )
    return `${trace.padEnd(34)} ${geometricMean(own.map(timeRatio)).toFixed(2)} (${parts.join(', ')})`
  })
  return `time under-provisioned, Rubato / the stronger HPA, per trace (by boot time):\n${lines.join('\n')}\n`
}

function markdown({ scale }: Settings, cells: readonly Cell[], failures: readonly Refused[], worker: string): string {
  const lost = cells.filter((cell) => timeRatio(cell) > 1)
  const missed = cells.filter((cell) => timeRatio(cell) > 0.5 && timeRatio(cell) <= 1)
  const name = ({ trace, bootS }: Cell) => `${escaped(trace)} at ${bootS} s`
  const parts = [
    '# Elasticity: every trace, policy and boot time',
    '',
    `Demand scaled so that its 99th percentile is ${scale.peak} instances' worth; linear between the steps, with Poisson noise; gaps count as 0. The first third (all but the last ${MEASURED_DAYS} days where that is more) is history. Machines hold ${scale.perMachine} instances; an instance starts in 10 s. Formulae and their sources: docs/elasticity.md.`,
    '',
    ...failures.map(({ file, why }) => `Left out: ${escaped(file)}: ${escaped(why)}\n`),
  ]
  if (cells.length > 0)
    parts.push(
      '## Time under-provisioned against the HPA rule',
      '',
      `| trace | seed | boot | Rubato τ_U % | machine-hours | HPA 70 % τ_U | its hours | matched target | τ_U | its hours | ratio to the stronger |`,
      '|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
      ...cells.map((cell) => {
        const { ours, usual, matched, target } = cell
        return `| ${escaped(cell.trace)} | ${cell.seed} | ${cell.bootS} s | ${two(ours.underTime)} | ${ours.machineHours.toFixed(0)} | ${two(usual.underTime)} | ${usual.machineHours.toFixed(0)} | ${target} % | ${two(matched.underTime)} | ${matched.machineHours.toFixed(0)} | ${two(timeRatio(cell))} |`
      }),
      '',
      `Lost (ratio above 1): ${lost.length === 0 ? 'nowhere' : lost.map(name).join('; ')}.`,
      '',
      `Between half and equal: ${missed.length === 0 ? 'nowhere' : missed.map(name).join('; ')}. Where both are below the floor of ${FLOOR} % the ratio is 1.`,
      '',
    )
  const rows = cells.flatMap((cell) =>
    cell.rows.map((row) => ({ ...row, trace: cell.trace, bootS: cell.bootS, seed: cell.seed })),
  )
  for (const [trace, own] of Map.groupBy(rows, (row) => row.trace)) {
    parts.push(
      `## ${escaped(trace)}`,
      '',
      '| seed | boot | policy | θ_U % | θ_O % | τ_U % | τ_O % | υ % | jitter /h | speedup over fixed | late % | failed % | machine-hours | USD | steps /h |',
      '|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|',
    )
    for (const { seed, bootS, title, metrics: m } of own) {
      const fixed =
        own.find((row) => row.bootS === bootS && row.seed === seed && row.title.startsWith('fixed for the 99th'))?.metrics ?? m
      parts.push(
        `| ${seed} | ${bootS} s | ${title} | ${two(m.underAmount)} | ${one(m.overAmount)} | ${two(m.underTime)} | ${one(m.overTime)} | ${one(m.instability)} | ${one(m.jitter)} | ${two(elasticSpeedup(fixed, m))} | ${two(m.beyondObjective)} | ${two(m.failed)} | ${m.machineHours.toFixed(0)} | ${two(m.costUsd)} | ${one(m.actionsPerHour)} |`,
      )
    }
    parts.push('')
  }
  return `${[...parts, worker].join('\n')}\n`
}

/** Names of files may hold what a Markdown table would read as its own. */
const escaped = (text: string) => text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ')
const one = (value: number) => value.toFixed(1)
const two = (value: number) => value.toFixed(2)
