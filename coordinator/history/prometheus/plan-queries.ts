/**
 * What to ask Prometheus for, so that it answers as the history would. Pure.
 *
 * Only samples that were scraped within a step count for it (`…_over_time`), so that Prometheus' habit of repeating the last value for
 * five minutes invents nothing. A step is asked for at its last millisecond: a window of exactly one step then holds its own samples
 * alone (Prometheus before 3 also takes in one stamped in the very last millisecond before it).
 *
 * A coordinator that restarts on another address, or two jobs that scrape it, make several series of one: samples of gauges weigh alike
 * whatever series they are in; of counters the largest counts, since each of them counts all requests.
 */
import { LEVELS, levelFor, oldestKeptMs } from '../levels.ts'
import type { SeriesQuery } from '../series.ts'
import { type Figure, figureOf, FIGURES, kindOf, labelsOf, type SubjectKind } from './figure-names.ts'

export interface RangeQuery {
  /** Gives two series, told apart by the label `stat`: mean and max; only the first where they are the same. */
  readonly expression: string
  /** First and last moment to evaluate it at, epoch ms. */
  readonly startMs: number
  readonly endMs: number
  readonly stepMs: number
  /** The history's value of 1 in the answer. */
  readonly factor: number
}

export interface AskedServer {
  readonly cluster: string
  readonly scrapeIntervalMs: number
}

/** Prometheus refuses more than 11,000; fewer at once keep the answers small and each query short. */
export const POINTS_AT_ONCE = 2_000
/** Into so many parts a step is cut at most to find its peak. */
const PARTS = 15
/** How late a scrape may be without leaving a counter with one sample where a rate needs two. */
const LATE_MS = 5_000

/** In order of time; empty where nothing of it can be known. */
export function planQueries(query: SeriesQuery, server: AskedServer, nowMs: number): readonly RangeQuery[] {
  const figure = figureOf(query)
  if (figure === null) return []
  const level = LEVELS[levelFor(Math.max(query.stepMs, finestStepMs(server.scrapeIntervalMs)))]
  const { stepMs } = level
  const firstMs = Math.ceil(Math.max(query.fromMs, oldestKeptMs(level, nowMs)) / stepMs) * stepMs
  const endMs = Math.min(query.toMs, nowMs)
  const expression = expressionOf(query.subject, figure, stepMs, server)
  const queries: RangeQuery[] = []
  for (let atMs = firstMs; atMs < endMs; atMs += POINTS_AT_ONCE * stepMs) {
    const lastMs = Math.min(atMs + (POINTS_AT_ONCE - 1) * stepMs, Math.ceil(endMs / stepMs - 1) * stepMs)
    queries.push({
      expression,
      startMs: askedAtMs(atMs, stepMs),
      endMs: askedAtMs(lastMs, stepMs),
      stepMs,
      factor: figure.factor,
    })
  }
  return queries
}

/** The finest of the history's steps that every scrape reaches. */
export function finestStepMs(scrapeIntervalMs: number): number {
  return LEVELS.find(({ stepMs }) => stepMs >= scrapeIntervalMs)?.stepMs ?? LEVELS[2].stepMs
}

/** Beginning of the step that an evaluation at that time stands for. */
export function stepOf(evaluatedMs: number, stepMs: number): number {
  return evaluatedMs - stepMs + 1
}

/** Matcher of every series that the history has in Prometheus, or of those of one subject. */
export function matcherOf(subject: string | undefined, cluster: string): string {
  const kind = subject === undefined ? null : kindOf(subject)
  const figures = Object.entries(FIGURES).flatMap(([each, measures]) =>
    kind === null || kind === (each as SubjectKind) ? Object.values(measures) : [],
  )
  const names = new Set(figures.map(({ kind: type, name }) => (type === 'histogram' ? `${name}_bucket` : name)))
  // Of a histogram's buckets one stands for all; what is no histogram has no such label.
  return `{__name__=~"${[...names].join('|')}",le=~"|[+]Inf",${labelsOf(subject ?? 'cluster', cluster)}}`
}

/** Asks whether anything of this cluster was scraped lately: 1 or more, else 0. */
export function probeOf({ cluster, scrapeIntervalMs }: AskedServer): string {
  const lately = Math.max(300_000, 5 * scrapeIntervalMs)
  const { name } = FIGURES.cluster.wanted as Figure
  return `count(count_over_time(${name}{${labelsOf('cluster', cluster)}}[${lately}ms])) or vector(0)`
}

function askedAtMs(stepAtMs: number, stepMs: number): number {
  return stepAtMs + stepMs - 1
}

function expressionOf(subject: string, figure: Figure, stepMs: number, { cluster, scrapeIntervalMs }: AskedServer): string {
  const matchers = `{${labelsOf(subject, cluster)}}`
  const over = (ms: number) => `[${ms}ms]`
  const series = `${figure.name}${figure.kind === 'histogram' ? '_bucket' : ''}${matchers}`
  if (figure.kind === 'gauge') {
    const window = `${series}${over(stepMs)}`
    return meanAndMax(`sum(sum_over_time(${window})) / sum(count_over_time(${window}))`, `max(max_over_time(${window}))`)
  }
  // A rate needs the scrape before the step too. A step without any scrape of its own has none, though earlier ones be near.
  const reach = scrapeIntervalMs + LATE_MS
  const rate = (ms: number) => `(rate(${series}${over(ms + reach)}) and count_over_time(${series}${over(ms)}))`
  if (figure.kind === 'histogram') {
    // Twenty series each: of parts of the step too they would take Prometheus minutes for a month.
    return named(`histogram_quantile(0.95, sum by (le) (max by (app, service, le) ${rate(stepMs)}))`, 'mean')
  }
  const total = (ms: number) => `sum(max by (app, service) ${rate(ms)})`
  const partMs = Math.max(scrapeIntervalMs, stepMs / PARTS)
  return meanAndMax(
    total(stepMs),
    stepMs < 2 * partMs ? total(stepMs) : `max_over_time((${total(partMs)})[${stepMs}ms:${partMs}ms])`,
  )
}

/** One question for both, so that they are of the same samples. */
function meanAndMax(mean: string, max: string): string {
  return `${named(mean, 'mean')} or ${named(max, 'max')}`
}

function named(expression: string, stat: 'mean' | 'max'): string {
  return `label_replace(${expression}, "stat", "${stat}", "", "")`
}
