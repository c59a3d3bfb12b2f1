/** Measured values over time: which series there are, and their points as JSON or CSV. */
import { z } from '@hono/zod-openapi'
import { InputError, NotFoundError } from '../../shared/errors.ts'
import { nearest } from '../../shared/nearest.ts'
import { formatDuration, parseDurationMs } from '../../shared/units.ts'
import { resample } from '../history/levels.ts'
import { planRange } from '../history/plan-range.ts'
import { type Measure, MEASURE_UNITS, MEASURES, type Point, type SeriesId } from '../history/series.ts'
import type { ApiDeps } from './deps.ts'
import type { Endpoints } from './endpoint.ts'
import { pageQuery } from './inputs.ts'
import { pageOf } from './schemas.ts'
import { page } from './views.ts'

/** Of all measures of one answer together: about a megabyte. Holds 8 days by the minute. */
const MAX_POINTS = 15_000
const DEFAULT_SPAN_MS = 3_600_000
const FINEST_MS = 10_000

const SUBJECT = /^(?:service [^\s/]+\/[^\s/]+|(?:node|pool) [^\s/]+|cluster)$/

const subjectSchema = z.string().max(300).regex(SUBJECT, 'must be "service app/name", "node id", "pool name" or "cluster"')

/** Epoch ms or ISO 8601; without a zone it is UTC. */
const timeSchema = z.string().transform((text, context) => {
  const iso = /^\d{4}-\d\d-\d\d$/.test(text) || /(?:Z|[+-]\d\d:?\d\d)$/i.test(text) ? text : `${text}Z`
  const atMs = /^\d{1,15}$/.test(text) ? Number(text) : /^\d{4}-\d\d-\d\d/.test(text) ? Date.parse(iso) : Number.NaN
  if (!Number.isNaN(atMs)) return atMs
  context.addIssue({ code: 'custom', message: 'is no time: write 2026-03-01T12:00:00Z or ms since 1970' })
  return z.NEVER
})

/** Every measure by name, with room for blunders. */
const MAX_MEASURES_CHARS = 500

const measuresSchema = z.union([z.string(), z.array(z.string())]).transform((given, context) => {
  const text = [given].flat().join(',')
  const names = text.length > MAX_MEASURES_CHARS ? [] : text.split(',')
  if (names.length === 0 || names.length > MEASURES.length) {
    context.addIssue({ code: 'custom', message: `names too many; the measures are ${MEASURES.join(', ')}` })
    return z.NEVER
  }
  const measures: Measure[] = []
  for (const name of names) {
    if (isMeasure(name)) {
      if (!measures.includes(name)) measures.push(name)
      continue
    }
    const meant = nearest(name, MEASURES)
    const hint = meant === null ? `the measures are ${MEASURES.join(', ')}` : `did you mean ${meant}?`
    context.addIssue({ code: 'custom', message: `${JSON.stringify(name.slice(0, 40))} is no measure; ${hint}` })
  }
  return measures
})

const stepSchema = z.string().transform((text, context) => {
  const stepMs = parseDurationMs(text)
  if (stepMs !== null && stepMs >= FINEST_MS) return stepMs
  context.addIssue({ code: 'custom', message: 'must be a duration of at least 10s, such as 10s, 1m, 15m or 1h' })
  return z.NEVER
})

const seriesView = z.object({ subject: z.string(), measure: z.string() }).openapi('Series')
const pointView = z.object({ atMs: z.number(), value: z.number(), max: z.number() })
const historyView = z
  .object({
    subject: z.string(),
    fromMs: z.number(),
    toMs: z.number(),
    /** May be larger than asked: that fine is not kept for so long ago. */
    stepMs: z.number(),
    /** In the order asked; a measure without points has none. */
    series: z.array(z.object({ measure: z.string(), points: z.array(pointView) })),
  })
  .openapi('History')
export type HistoryView = z.infer<typeof historyView>

export function addHistoryRoutes({ add }: Endpoints, deps: ApiDeps): void {
  const { past, clock } = deps
  add(
    {
      route: 'GET /v1/history/series',
      tag: 'history',
      summary: 'Series that have points',
      query: z.strictObject({ ...pageQuery, subject: subjectSchema.optional() }),
      returns: pageOf(seriesView),
    },
    async ({ query }) => page(await past.series(query.subject), keyOf, query),
  )

  add(
    {
      route: 'GET /v1/history',
      tag: 'history',
      summary:
        'Measured values of a subject: mean and maximum per step; measures separated by commas, the last hour unless from and to say else. With Accept: text/csv one measure as timestamp,value',
      query: z.strictObject({
        subject: subjectSchema,
        measure: measuresSchema,
        from: timeSchema.optional(),
        to: timeSchema.optional(),
        step: stepSchema.optional(),
      }),
      returns: historyView,
    },
    async ({ query, request }) => {
      const nowMs = clock.now()
      const toMs = query.to ?? nowMs
      const fromMs = query.from ?? toMs - DEFAULT_SPAN_MS
      if (fromMs >= toMs)
        throw new InputError('The query cannot be used.', [{ path: '/from', message: 'must be earlier than "to"' }])
      const { subject, measure: measures } = query
      const csv = (request.headers.get('accept') ?? '').includes('text/csv')
      if (csv && measures.length > 1)
        throw new InputError('The query cannot be used.', [
          { path: '/measure', message: 'CSV holds one measure', hint: 'ask for each on its own, or for JSON' },
        ])
      const plan = planRange({ fromMs, toMs, wantedMs: query.step ?? null, nowMs, finestMs: past.finestStepMs })
      refuseTooMany(plan.steps * measures.length, { spanMs: toMs - fromMs, measures: measures.length })
      const found = await Promise.all(
        measures.map(async (measure) => {
          const { points } = await past.query({ subject, measure, fromMs, toMs, stepMs: plan.queryStepMs })
          return { measure, points: resample(points, plan.stepMs) }
        }),
      )
      if (found.every(({ points }) => points.length === 0)) refuseUnknown([...(await past.series(subject))], subject, measures)
      if (csv) return csvOf(found[0]?.points ?? [])
      return { subject, fromMs, toMs, stepMs: plan.stepMs, series: found }
    },
  )
}

function isMeasure(name: string): name is Measure {
  return Object.hasOwn(MEASURE_UNITS, name)
}

function keyOf({ subject, measure }: SeriesId): string {
  return `${subject} ${measure}`
}

function refuseTooMany(points: number, asked: { readonly spanMs: number; readonly measures: number }): void {
  if (points <= MAX_POINTS) return
  const leastMs = Math.ceil((asked.spanMs * asked.measures) / MAX_POINTS / 60_000) * 60_000
  throw new InputError('The query cannot be used.', [
    {
      path: '/step',
      message: `gives up to ${points} points, and one answer holds ${MAX_POINTS}`,
      hint: `leave it out, ask for a step of ${formatDuration(leastMs)} or more, or for a shorter time`,
    },
  ])
}

/** A series that never was is said so; one that only has no points in that time is an empty answer. */
function refuseUnknown(known: readonly SeriesId[], subject: string, measures: readonly Measure[]): void {
  if (known.some(({ measure }) => measures.includes(measure))) return
  throw new NotFoundError(
    known.length === 0
      ? `Nothing is kept of ${subject}. /v1/history/series lists what is.`
      : `Of ${subject} there is no ${measures.join(', ')}; there is ${known.map(({ measure }) => measure).join(', ')}.`,
  )
}

function csvOf(points: readonly Point[]): Response {
  const lines = points.map(({ atMs, value }) => `${new Date(atMs).toISOString().replace('.000Z', 'Z')},${value}\n`)
  return new Response(`timestamp,value\n${lines.join('')}`, { headers: { 'content-type': 'text/csv; charset=utf-8' } })
}
