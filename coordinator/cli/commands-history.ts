/** history: what was measured, as curves in the terminal, JSON or CSV. */
import { formatDuration, parseDurationMs } from '../../shared/units.ts'
import type { HistoryView } from '../api/routes-history.ts'
import { type Measure, MEASURE_UNITS, MEASURES } from '../history/series.ts'
import { CliError, EXIT } from './io.ts'
import { chart, columnsOf, fillSteps, rangeOf, sparkline } from './plot.ts'
import { bytes, cores, percent, type Session, serviceParts } from './session.ts'
import { type Column, renderTable } from './table.ts'
import { type AddVerb, offersCsv } from './verbs.ts'

const DEFAULT_WIDTH = 100
const CHART_HEIGHT = 8
const LABEL_WIDTH = 9
const NUMBER_WIDTH = 6

interface Flags {
  readonly since: string
  readonly until?: string
  readonly step?: string
}

export function addHistoryCommand(add: AddVerb): void {
  add<Flags>(
    'history <kind> [name] [measures...]',
    'what was measured: of a service, node or pool by name, or of the cluster',
    (command) =>
      command
        .option('--since <time>', 'a duration like 24h, or an ISO 8601 time', '1h')
        .option('--until <time>', 'the same; now unless given')
        .option('--step <duration>', 'of the answer, at least 10s; as fine as is of use unless given'),
    offersCsv,
  )(async (session, [kind = '', ...rest], flags) => {
    const { subject, wanted } = target(kind, rest)
    const nowMs = session.io.clock.now()
    const client = await session.client()
    const asked = {
      subject,
      from: timeOf('--since', flags.since, nowMs),
      to: flags.until === undefined ? undefined : timeOf('--until', flags.until, nowMs),
      step: flags.step,
    }
    if (session.csv) {
      if (wanted.length !== 1)
        throw new CliError(EXIT.refused, 'CSV holds one measure.', `Like "rubato history ${kind} … demand -o csv".`)
      const response = await client.open(
        '/v1/history',
        { ...asked, measure: wanted[0] },
        { accept: 'text/csv' },
        session.io.signal,
      )
      session.io.out(await response.text())
      return EXIT.ok
    }
    const measures = wanted.length > 0 ? wanted : await measuresOf(client, subject)
    const view = await client.get<HistoryView>('/v1/history', { ...asked, measure: measures.join(',') })
    session.print(view, () => lines(session, view))
    return EXIT.ok
  })
}

async function measuresOf(client: Awaited<ReturnType<Session['client']>>, subject: string): Promise<readonly string[]> {
  const found = await client.list<{ measure: string }>('/v1/history/series', { subject })
  if (found.length === 0)
    throw new CliError(EXIT.notFound, `Nothing is kept of ${subject}.`, '"rubato ps -s" and "rubato nodes" say what there is.')
  const names = new Set(found.map(({ measure }) => measure))
  return MEASURES.filter((measure) => names.has(measure))
}

function target(kind: string, rest: readonly (string | undefined)[]) {
  const [name, ...others] = rest.filter((part) => part !== undefined)
  const wanted = (parts: readonly string[]) => parts.flatMap((part) => part.split(',')).filter((part) => part !== '')
  if (kind === 'cluster') return { subject: 'cluster', wanted: wanted(name === undefined ? [] : [name, ...others]) }
  if (kind !== 'service' && kind !== 'node' && kind !== 'pool')
    throw new CliError(
      EXIT.refused,
      `There is no history of "${kind}".`,
      'Like "rubato history service app/web demand"; also node ID, pool NAME, cluster.',
    )
  if (name === undefined) throw new CliError(EXIT.refused, `Which ${kind}?`, `Like "rubato history ${kind} NAME".`)
  if (kind === 'service') serviceParts(name)
  return { subject: `${kind} ${name}`, wanted: wanted(others) }
}

/** Epoch ms; a duration counts back from now. */
function timeOf(flag: string, text: string, nowMs: number): number {
  const agoMs = parseDurationMs(text)
  if (agoMs !== null) return nowMs - agoMs
  const atMs = Date.parse(text)
  if (/^\d{4}-\d\d-\d\d/.test(text) && !Number.isNaN(atMs)) return atMs
  throw new CliError(EXIT.refused, `${flag} "${text}" is no time.`, 'Like 30m, 24h, 7d, or 2026-03-01T12:00:00Z.')
}

function lines(session: Session, view: HistoryView): readonly string[] {
  const { paint } = session
  const width = session.width ?? DEFAULT_WIDTH
  const span = { fromMs: view.fromMs, toMs: view.toMs }
  const head = `${view.subject}  ${clock(view.fromMs)} to ${clock(view.toMs)} UTC, steps of ${formatDuration(view.stepMs)}`
  const [only] = view.series
  const curve =
    view.series.length !== 1 || only === undefined ? [] : [...curveLines(only, view, span, Math.max(10, width - LABEL_WIDTH)), '']
  const longest = Math.max(...view.series.map(({ measure }) => measure.length), 'MEASURE'.length)
  const room = Math.max(10, width - longest - 2 - 4 * (NUMBER_WIDTH + 2))
  const number = (
    title: string,
    of: (points: HistoryView['series'][number]['points']) => number | null,
  ): Column<HistoryView['series'][number]> => ({
    title,
    align: 'right',
    value: ({ measure, points }) => format(measure, points.length === 0 ? null : of(points)),
  })
  const table = renderTable(
    view.series,
    [
      { title: 'MEASURE', value: ({ measure }) => measure },
      number('LAST', (points) => points.at(-1)?.value ?? null),
      number('MEAN', (points) => points.reduce((sum, { value }) => sum + value, 0) / points.length),
      number('MIN', (points) => points.reduce((least, { value }) => Math.min(least, value), Number.POSITIVE_INFINITY)),
      number('PEAK', (points) => points.reduce((most, { max }) => Math.max(most, max), Number.NEGATIVE_INFINITY)),
      ...(curve.length > 0
        ? []
        : [
            {
              title: '',
              value: ({ points }: HistoryView['series'][number]) =>
                sparkline(fillSteps(columnsOf(points, span, room), span, view.stepMs)),
            },
          ]),
    ],
    { width: session.width, paint },
  )
  return [paint('faint', head), ...curve, ...table]
}

function curveLines(
  series: HistoryView['series'][number],
  view: HistoryView,
  span: { readonly fromMs: number; readonly toMs: number },
  width: number,
): readonly string[] {
  const columns = fillSteps(columnsOf(series.points, span, width), span, view.stepMs)
  const { least, most } = rangeOf(columns)
  return chart(columns, CHART_HEIGHT).map((line, row) => {
    const label = row === 0 ? format(series.measure, most) : row === CHART_HEIGHT - 1 ? format(series.measure, least) : ''
    return `${label.padStart(LABEL_WIDTH - 2)} ${row === 0 || row === CHART_HEIGHT - 1 ? '┤' : '│'}${line}`
  })
}

function clock(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 16).replace('T', ' ')
}

function format(measure: string, value: number | null): string {
  if (value === null || !Number.isFinite(value)) return '-'
  const short = (digits: number) => String(Number(value.toFixed(digits)))
  switch (MEASURE_UNITS[measure as Measure]) {
    case 'percent':
      return percent(value)
    case 'cpuMillis':
      return cores(value)
    case 'bytes':
      return bytes(Math.round(value))
    case 'bytesPerS':
      return `${bytes(Math.round(value))}/s`
    case 'perS':
      return `${short(value < 10 ? 2 : 0)}/s`
    case 'ms':
      return `${short(value < 10 ? 1 : 0)}ms`
    case 'usd':
      return `$${value.toFixed(value < 1 ? 3 : 2)}`
    default:
      return short(1)
  }
}
