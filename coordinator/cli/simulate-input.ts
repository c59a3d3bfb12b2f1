/** The demand of a simulation and the service that meets it: from a CSV or from the coordinator's history, and from an app file. */
import { basename, resolve } from 'node:path'
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import { formatDuration } from '../../shared/units.ts'
import type { UsualDemand } from '../simulate/run.ts'
import { type GapRule, parseTrace, type Trace } from '../simulate/trace.ts'
import { readChosenApp } from './app-file-option.ts'
import { CliError, EXIT } from './io.ts'
import { serviceParts, type Session } from './session.ts'

export interface GivenDemand {
  readonly trace: Trace
  /** Of the time before the series, in its unit: coarser, to learn from alone. */
  readonly usual: readonly UsualDemand[]
  readonly warnings: readonly string[]
}

const MAX_BYTES = 100 * 2 ** 20
const MINUTE_MS = 60_000
const COARSE_MS = 15 * MINUTE_MS
const DAY_MS = 86_400_000
/** What the history keeps by the minute, and in quarters of an hour (docs/history.md). */
const MINUTES_KEPT_MS = 8 * DAY_MS
const COARSE_KEPT_MS = 90 * DAY_MS
/** The oldest minutes go while the question is on its way, and the clock there may be ahead of ours. */
const MARGIN_MS = 60 * MINUTE_MS
/** Shorter than this the minutes are too few to replay, and what is coarser says more. */
const LEAST_MINUTES_MS = 3_600_000

export async function readTrace(session: Session, file: string | undefined, gaps: string): Promise<GivenDemand> {
  if (file === undefined)
    throw refused('There is no demand to replay.', 'Name a CSV with --trace FILE, or a service with --history app/service.')
  const path = resolve(session.io.cwd, file)
  const size = await session.io.sizeOf(path)
  if (size === null) throw new CliError(EXIT.notFound, `There is no file ${path}.`, 'Name a CSV "timestamp,value" with --trace.')
  if (size > MAX_BYTES)
    throw refused(
      `${file} has ${Math.round(size / 2 ** 20)} MiB, more than ${MAX_BYTES / 2 ** 20}.`,
      'Sum it up into steps of 1 to 5 minutes first.',
    )
  const text = await session.io.readText(path)
  return { trace: parseTrace(text ?? '', { name: basename(path), gaps: gapRule(gaps) }), usual: [], warnings: [] }
}

interface Point {
  readonly atMs: number
  readonly value: number
}

/**
 * Minutes as far back as they are kept; what is older teaches what is usual. A replay that shall begin before them takes the means of
 * quarters of an hour for all of it: a burst of minutes is not in them, which is told.
 */
export async function readHistory(
  session: Session,
  named: string,
  { gaps, fromMs }: { readonly gaps: string; readonly fromMs: number | null },
): Promise<GivenDemand> {
  const { app, service } = serviceParts(named)
  const client = await session.client()
  const nowMs = session.io.clock.now()
  const ask = async (ageMs: number, stepMs: number): Promise<readonly Point[]> => {
    const found = await client.get<{
      readonly stepMs: number
      readonly series: readonly { readonly points: readonly Point[] }[]
    }>('/v1/history', {
      subject: `service ${app}/${service}`,
      measure: 'demand',
      from: String(nowMs - ageMs),
      to: String(nowMs),
      step: formatDuration(stepMs),
    })
    return found.stepMs === stepMs ? (found.series[0]?.points ?? []) : []
  }
  const minutes = await ask(MINUTES_KEPT_MS - MARGIN_MS, MINUTE_MS)
  const quarters = await ask(COARSE_KEPT_MS, COARSE_MS)
  const firstMs = minutes[0]?.atMs ?? Number.POSITIVE_INFINITY
  const reaches = fromMs === null ? (minutes.at(-1)?.atMs ?? 0) - firstMs >= LEAST_MINUTES_MS : fromMs >= firstMs
  const older = quarters.filter(({ atMs }) => atMs + COARSE_MS <= firstMs)
  // Where there is nothing coarser either, a few minutes are all that is known.
  const isFine = minutes.length >= 3 && (reaches || older.length < 3)
  const points = isFine ? minutes : quarters
  if (points.length < 3)
    throw new CliError(
      EXIT.notFound,
      `Too little is known of the demand for ${named}.`,
      'It is measured from its deployment on; try again in an hour.',
    )
  const csv = points.map(({ atMs, value }) => `${atMs},${value}`).join('\n')
  return {
    trace: parseTrace(csv, { name: `history of ${named}`, gaps: gaps === 'refuse' ? 'interpolate' : gapRule(gaps) }),
    usual: isFine ? older.map(({ atMs, value }) => ({ atMs, spanMs: COARSE_MS, demand: value })) : [],
    warnings: isFine
      ? []
      : [
          `the replay is made of means over ${formatDuration(COARSE_MS)}, since minutes are kept for ${MINUTES_KEPT_MS / DAY_MS} days only: bursts shorter than that are not in it, and every policy looks better than it is`,
        ],
  }
}

export interface GivenService {
  readonly app: string
  readonly spec: ServiceSpec
  readonly rules: ScaleRules
}

/** The service that scales, or the one that is named; warnings of the app file are printed. */
export async function readService(session: Session, file: string, service: string | undefined): Promise<GivenService> {
  const { spec: app } = await readChosenApp(session, { file: [file] })
  const scaling = app.services.filter(({ scale }) => scale !== null)
  const names = scaling.map(({ name }) => name).join(', ')
  if (service === undefined && scaling.length > 1)
    throw refused(`${file} has several services that scale: ${names}.`, 'Choose one with --service NAME.')
  const spec: ServiceSpec | undefined = service === undefined ? scaling[0] : app.services.find(({ name }) => name === service)
  if (spec === undefined)
    throw refused(
      service === undefined ? `No service of ${file} scales.` : `${file} has no service ${service}.`,
      names === '' ? 'Give it x-rubato.scale (docs/app-files.md).' : `Those that scale: ${names}.`,
    )
  if (spec.scale === null)
    throw refused(`The service ${spec.name} does not scale.`, 'Give it x-rubato.scale (docs/app-files.md).')
  return { app: app.name, spec, rules: spec.scale }
}

function gapRule(text: string): GapRule {
  if (text === 'zero' || text === 'interpolate' || text === 'refuse') return text
  throw refused(`--gaps ${text} means nothing.`, 'Use zero, interpolate or refuse.')
}

export function refused(message: string, hint: string): CliError {
  return new CliError(EXIT.refused, message, hint)
}
