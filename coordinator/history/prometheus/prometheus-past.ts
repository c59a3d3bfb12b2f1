/**
 * The past as a Prometheus knows it that scrapes this coordinator. Once it is away it is asked for nothing more than a sign of life, so
 * that a server which hangs costs its time-out once and not with every question.
 */
import { z } from 'zod'
import { compareSeries } from '../series-index.ts'
import { isRecordable } from '../levels.ts'
import type { Past } from '../past.ts'
import type { Clock } from '../../../shared/clock.ts'
import type { Logger } from '../../../shared/logger.ts'
import type { Point, SeriesId } from '../series.ts'
import { seriesBehind } from './figure-names.ts'
import { finestStepMs, matcherOf, planQueries, probeOf, type RangeQuery, stepOf } from './plan-queries.ts'
import type { PrometheusClient } from './prometheus-client.ts'

export interface PrometheusStatus {
  /** What is wrong, for people; null: nothing. */
  readonly fault: string | null
  /** It is not asked for the past now. With a fault and not away it is asked, but knows less than it should. */
  readonly isAway: boolean
  /** Questions without a usable answer since the start. */
  readonly failures: number
  /** How far its clock is ahead of ours; null: not known. */
  readonly clockAheadMs: number | null
}

export interface PrometheusPast extends Past {
  status(): PrometheusStatus
  /** Calls back whenever it is found to be away. */
  onAway(listener: () => void): void
  /** Looks whether it answers, has figures of this cluster, and what time it has; brings it back when it was away. Never rejects. */
  probe(signal: AbortSignal): Promise<void>
}

export interface PrometheusPastDeps {
  readonly client: PrometheusClient
  /** Id of this cluster. */
  readonly cluster: string
  readonly scrapeIntervalMs: number
  readonly clock: Clock
  readonly logger: Logger
}

/** More only wait for each other there, and each has no longer than its time-out. */
const AT_ONCE = 4
/** Two series of POINTS_AT_ONCE points, with room. */
const MAX_POINTS_BYTES = 4 << 20
/** About 100,000 series. */
const MAX_SERIES_BYTES = 32 << 20
/** Sooner than ours, so that a query which takes too long is told from a server that does not answer. */
const QUERY_TIMEOUT_MS = 8_000
/** How far back series are listed: what is older has ended. */
const LISTED_MS = 90 * 86_400_000
/** Its times say when a sample was; further off, the last minutes are looked for in the wrong place. */
const CLOCK_TOLERANCE_MS = 10_000
/** A coordinator that just began was not scraped yet. */
const BLIND_AFTER_MS = 300_000
/** One that refuses every query would fill the log. */
const TOLD_EVERY_MS = 60_000

const pointSchema = z.tuple([z.number(), z.string()])
const matrixSchema = z.object({
  resultType: z.literal('matrix'),
  result: z.array(z.object({ metric: z.record(z.string(), z.string()), values: z.array(pointSchema) })).max(2),
})
const probeSchema = z.object({ resultType: z.literal('vector'), result: z.tuple([z.object({ value: pointSchema })]) })
const seriesSchema = z.array(z.record(z.string(), z.string()))

export function createPrometheusPast(deps: PrometheusPastDeps): PrometheusPast {
  const { client, clock, logger } = deps
  const startedMs = clock.monotonicMs()
  const inTurn = createTurns(AT_ONCE)
  const listeners: (() => void)[] = []
  let away: string | null = null
  let concern: string | null = null
  let failures = 0
  let clockAheadMs: number | null = null
  let toldMs = Number.NEGATIVE_INFINITY

  /** What it answered, as the schema reads it; null when it did not. */
  const ask = async <T>(
    path: string,
    parameters: Readonly<Record<string, string>>,
    asked: { readonly maxBytes: number; readonly signal?: AbortSignal },
    schema: z.ZodType<T>,
  ): Promise<T | null> => {
    const reply = await client.ask(path, parameters, asked)
    if (asked.signal?.aborted === true) return null
    if (reply.kind === 'data') {
      const parsed = schema.safeParse(reply.data)
      if (parsed.success) return parsed.data
    }
    failures += 1
    const detail = reply.kind === 'data' ? 'what it answered is not of Prometheus' : reply.detail
    if (reply.kind === 'refused') {
      if (clock.monotonicMs() - toldMs >= TOLD_EVERY_MS) {
        toldMs = clock.monotonicMs()
        logger.warn('a query was not answered', { path, detail })
      }
    } else {
      away = detail
      for (const listener of listeners) listener()
    }
    return null
  }

  /** As `ask`, of the past: a few at a time, and none once it is away. */
  const askInTurn: typeof ask = (...question) => inTurn(async () => (away === null ? ask(...question) : null))

  const range = async (asked: RangeQuery): Promise<readonly Point[] | null> => {
    const parameters = {
      query: asked.expression,
      start: seconds(asked.startMs),
      end: seconds(asked.endMs),
      step: seconds(asked.stepMs),
      timeout: `${QUERY_TIMEOUT_MS}ms`,
    }
    const answer = await askInTurn('query_range', parameters, { maxBytes: MAX_POINTS_BYTES }, matrixSchema)
    return answer === null ? null : pointsOf(answer.result, asked)
  }

  return {
    finestStepMs: finestStepMs(deps.scrapeIntervalMs),

    async query(query) {
      const points: Point[] = []
      for (const part of planQueries(query, deps, clock.now())) {
        const found = await range(part)
        if (found === null) return { points, isWhole: false }
        points.push(...found)
      }
      return { points, isWhole: away === null }
    },

    async series(subject) {
      const nowMs = clock.now()
      const parameters = {
        'match[]': matcherOf(subject, deps.cluster),
        start: seconds(nowMs - LISTED_MS),
        end: seconds(nowMs),
      }
      const answer = await askInTurn('series', parameters, { maxBytes: MAX_SERIES_BYTES }, seriesSchema)
      const found = new Map<string, SeriesId>()
      for (const labels of answer ?? [])
        for (const id of seriesBehind(labels))
          if (subject === undefined || id.subject === subject) found.set(`${id.subject} ${id.measure}`, id)
      return subject === undefined ? found.values() : [...found.values()].sort(compareSeries)
    },

    onAway: (listener) => void listeners.push(listener),

    async probe(signal) {
      const sentMs = clock.now()
      const answer = await ask('query', { query: probeOf(deps) }, { maxBytes: MAX_POINTS_BYTES, signal }, probeSchema)
      if (answer === null) return
      away = null
      const [atSeconds, count] = answer.result[0].value
      const receivedMs = clock.now()
      clockAheadMs = Math.round(atSeconds * 1000 - (sentMs + receivedMs) / 2)
      const isScraped = Number(count) > 0 || clock.monotonicMs() - startedMs < BLIND_AFTER_MS
      const isInTime = Math.abs(clockAheadMs) <= CLOCK_TOLERANCE_MS + (receivedMs - sentMs)
      if (!isScraped) concern = 'it has no figures of this cluster of the last minutes: does it scrape /metrics?'
      else if (!isInTime) {
        const off = `${Math.round(Math.abs(clockAheadMs) / 1000)} s ${clockAheadMs > 0 ? 'ahead of' : 'behind'}`
        concern = `its clock is ${off} ours, so that what it measured seems to have been at other times`
      } else concern = null
    },

    status: () => ({ fault: away ?? concern, isAway: away !== null, failures, clockAheadMs }),
  }
}

/** Pairs of mean and max by step; what is no number, or of a moment that was not asked for, is left out. */
function pointsOf(
  result: z.output<typeof matrixSchema>['result'],
  { startMs, endMs, stepMs, factor }: RangeQuery,
): readonly Point[] {
  const valuesOf = (stat: string) => {
    const values = new Map<number, number>()
    for (const [at, text] of result.find(({ metric }) => metric.stat === stat)?.values ?? []) {
      const evaluatedMs = Math.round(at * 1000)
      // An empty text is no zero.
      const value = text === '' ? Number.NaN : Number(text)
      const isAsked = evaluatedMs >= startMs && evaluatedMs <= endMs && (evaluatedMs - startMs) % stepMs === 0
      if (isAsked && isRecordable(value)) values.set(stepOf(evaluatedMs, stepMs), value * factor)
    }
    return values
  }
  const maxima = valuesOf('max')
  return [...valuesOf('mean')]
    .map(([atMs, value]) => ({ atMs, value, max: Math.max(value, maxima.get(atMs) ?? value) }))
    .sort((a, b) => a.atMs - b.atMs)
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(3)
}

/** Lets so many work at once; the others wait their turn. */
function createTurns(atOnce: number): <T>(work: () => Promise<T>) => Promise<T> {
  const waiting: (() => void)[] = []
  let free = atOnce
  return async (work) => {
    if (free > 0) free -= 1
    else await new Promise<void>((resolve) => waiting.push(resolve))
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next === undefined) free += 1
      else next()
    }
  }
}
