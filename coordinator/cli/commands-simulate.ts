/** `rubato simulate`: what would this demand have met with, and cost, under which policy? Runs on this machine alone. */
import { basename, resolve } from 'node:path'
import { parse } from 'yaml'
import { messageOf } from '../../shared/errors.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { Pool } from '../../shared/model/node.ts'
import { formatDuration } from '../../shared/units.ts'
import { capacityOf, poolSchema } from '../pool-settings.ts'
import { demandOf, unitFor } from '../simulate/demand.ts'
import { DEFAULT_POLICIES, policiesNamed } from '../simulate/policies.ts'
import { simPool } from '../simulate/pools.ts'
import { METRIC_COLUMNS, type ReportRun, reportHtml } from '../simulate/report-html.ts'
import { type RunSetup, runPolicy } from '../simulate/run.ts'
import { DEFAULT_SERVICE_MODEL, serviceTables } from '../simulate/service-model.ts'
import { type GapRule, parseTrace, type Trace } from '../simulate/trace.ts'
import { CliError, EXIT } from './io.ts'
import { durationMs, serviceParts, type Session } from './session.ts'
import type { AddVerb } from './verbs.ts'

interface SimulateFlags {
  readonly trace?: string
  readonly history?: string
  readonly app: string
  readonly service?: string
  readonly pools?: string
  readonly policy: string
  readonly boot: string
  readonly start: string
  readonly objective: string
  readonly unit?: string
  readonly peak: string
  readonly gaps: string
  readonly from?: string
  readonly seed: string
  readonly report: string
}

const MAX_BYTES = 100 * 2 ** 20
/** The learning part of a series, unless `--from` says otherwise. */
const LEARN_SHARE = 1 / 3
const HISTORY_DAYS = 90
const DAY_MS = 86_400_000

export function addSimulate(add: AddVerb): void {
  add<SimulateFlags>('simulate', 'replay a demand series against scaling policies, machines and prices', (command) =>
    command
      .option('--trace <file>', 'CSV "timestamp,value" of the demand, in equal steps')
      .option('--history <service>', 'instead: the demand that the coordinator has measured of app/service')
      .requiredOption('--app <file>', 'app file: scaling rules, reservations')
      .option('--service <name>', 'which of its services; needed where several scale')
      .option('--pools <file>', 'YAML with "pools:" as in the coordinator’s configuration; default: 2 CPUs, 4 GiB, $0.10/h')
      .option('--policy <names>', 'all, or names separated by commas; hpa:60 is the HPA rule at 60 %', DEFAULT_POLICIES)
      .option('--boot <durations>', 'from ordering a machine to its joining; several separated by commas', '120s')
      .option('--start <duration>', 'from placing an instance to its readiness', '10s')
      .option('--objective <duration>', '95 % of the answers within this', `${DEFAULT_SERVICE_MODEL.latencyMs}ms`)
      .option('--unit <number>', 'what one full instance serves, in the unit of the series')
      .option('--peak <instances>', 'instead of --unit: the 99th percentile of the demand is so many instances', '20')
      .option('--gaps <rule>', 'what gaps of more than three steps mean: zero, interpolate or refuse', 'refuse')
      .option('--from <time>', 'replay from here on; what lies before is history to learn from. Default: the first third')
      .option('--seed <number>', 'of the randomness', '1')
      .option('--report <file>', 'HTML report', 'simulation.html'),
  )(async (session, _args, flags) => {
    const trace = flags.history === undefined ? await readTrace(session, flags) : await readHistory(session, flags.history, flags)
    const { app, spec, rules } = await readService(session, flags)
    const pools = await readPools(session, flags.pools)
    const latencyMs = duration('--objective', flags.objective)
    if (latencyMs <= 3 * DEFAULT_SERVICE_MODEL.serviceMs)
      throw refused(
        `--objective ${flags.objective} is out of reach for a service time of ${DEFAULT_SERVICE_MODEL.serviceMs} ms.`,
        `Its own 95th percentile is ${3 * DEFAULT_SERVICE_MODEL.serviceMs} ms; name more than that.`,
      )
    const tables = serviceTables({ ...DEFAULT_SERVICE_MODEL, latencyMs })
    const isHistory = flags.history !== undefined
    const perUnit =
      flags.unit !== undefined ? positive('--unit', flags.unit) : isHistory ? 100 : unitFor(trace, positive('--peak', flags.peak))
    const demand = demandOf(trace, perUnit)
    const fromMs = startOf(flags.from, trace, demand.endMs)
    const policies = policiesNamed(flags.policy)
    const runs: ReportRun[] = []
    const boots = flags.boot.split(',').map((text) => duration('--boot', text))
    for (const bootMs of boots) {
      const simPools = pools.map((pool) => simPool(pool, `${app}/${spec.name}`, spec, bootMs))
      if (!simPools.some(({ holds, max }) => holds > 0 && max > 0))
        throw refused(
          `No pool has a machine that holds an instance of ${spec.name}.`,
          'Reserve less, or name larger machines with --pools.',
        )
      for (const policy of policies) {
        const setup: RunSetup = {
          demand,
          fromMs,
          toMs: demand.endMs,
          app,
          spec,
          rules,
          tables,
          pools: simPools.filter(({ holds }) => holds > 0),
          startTimeMs: duration('--start', flags.start),
          seed: Math.floor(number('--seed', flags.seed)),
          record: true,
          // A terminal's line is replaced; elsewhere each is a line of its own.
          onProgress: (done) => {
            const percent = session.io.stderrIsTty ? Math.floor(100 * done) : 25 * Math.floor(4 * done)
            session.progress(`${policy.title}, boot ${formatDuration(bootMs)}: ${percent} %`)
          },
        }
        runs.push({ title: policy.title, source: policy.source, bootMs, result: runPolicy(policy, setup) })
        if (session.io.signal.aborted) return EXIT.interrupted
      }
    }
    session.endProgress()
    const file = resolve(session.io.cwd, flags.report)
    const setup: readonly (readonly [string, string])[] = [
      ['demand', `${trace.name}, ${trace.values.length} steps of ${formatDuration(trace.stepMs)}`],
      ['replayed', `${isoMinute(fromMs)} to ${isoMinute(demand.endMs)} UTC`],
      ['one instance serves', `${perUnit.toPrecision(4)} of the series’ unit`],
      ['objective', `95 % within ${latencyMs} ms`],
      ['service model', `M/M/c, ${tables.model.workers} requests at once, ${tables.model.serviceMs} ms each, an ideal balancer`],
      ['machines', pools.map((pool) => `${pool.name} at $${pool.priceUsdPerHour}/h`).join(', ')],
      ...(spec.placement.scheduler === undefined
        ? []
        : [['scheduler', `the built-in one; ${spec.placement.scheduler} is not asked`] as const]),
      ['between the steps', 'linear, with Poisson noise'],
      ['seed', flags.seed],
    ]
    await writeReport(session, file, reportHtml({ heading: `${app}/${spec.name} under ${trace.name}`, setup, runs }))
    session.print(
      {
        trace: trace.name,
        fromMs,
        toMs: demand.endMs,
        perUnit,
        report: file,
        runs: runs.map(({ bootMs, result }) => ({ policy: result.policy, bootMs, ...result.metrics })),
      },
      () => [
        ...session.lines(runs, [
          { title: 'POLICY', value: ({ title }) => title, shrinkTo: 12 },
          { title: 'BOOT', value: ({ bootMs }) => formatDuration(bootMs), align: 'right' },
          ...METRIC_COLUMNS.filter(({ title }) => SHOWN.has(title)).map(({ title, value }) => ({
            title: title.toUpperCase(),
            value: ({ result }: ReportRun) => value(result.metrics),
            align: 'right' as const,
          })),
        ]),
        `Replayed ${isoMinute(fromMs)} to ${isoMinute(demand.endMs)} UTC; every decision is in ${file}.`,
      ],
    )
    return EXIT.ok
  })
}

const SHOWN = new Set(['under time %', 'over %', 'late %', 'machine hours', 'USD', 'steps /h'])

async function readTrace(session: Session, flags: SimulateFlags): Promise<Trace> {
  if (flags.trace === undefined)
    throw refused('There is no demand to replay.', 'Name a CSV with --trace FILE, or a service with --history app/service.')
  const path = resolve(session.io.cwd, flags.trace)
  const size = await session.io.sizeOf(path)
  if (size === null) throw new CliError(EXIT.notFound, `There is no file ${path}.`, 'Name a CSV "timestamp,value" with --trace.')
  if (size > MAX_BYTES)
    throw refused(
      `${flags.trace} has ${Math.round(size / 2 ** 20)} MiB, more than ${MAX_BYTES / 2 ** 20}.`,
      'Sum it up into steps of 1 to 5 minutes first.',
    )
  const text = await session.io.readText(path)
  return parseTrace(text ?? '', { name: basename(path), gaps: gapRule(flags.gaps) })
}

async function readHistory(session: Session, named: string, flags: SimulateFlags): Promise<Trace> {
  const { app, service } = serviceParts(named)
  const client = await session.client()
  const toMs = session.io.clock.now()
  const found = await client.get<{ readonly series: readonly { readonly points: readonly { atMs: number; value: number }[] }[] }>(
    '/v1/history',
    {
      subject: `service ${app}/${service}`,
      measure: 'demand',
      from: String(toMs - HISTORY_DAYS * DAY_MS),
      to: String(toMs),
      step: '15m',
    },
  )
  const points = found.series[0]?.points ?? []
  if (points.length < 3)
    throw new CliError(
      EXIT.notFound,
      `Too little is known of the demand for ${named}.`,
      'It is measured from its deployment on; try again in an hour.',
    )
  const csv = points.map(({ atMs, value }) => `${atMs},${value}`).join('\n')
  return parseTrace(csv, { name: `history of ${named}`, gaps: flags.gaps === 'refuse' ? 'interpolate' : gapRule(flags.gaps) })
}

async function readService(session: Session, flags: SimulateFlags) {
  const { io } = session
  const file = resolve(io.cwd, flags.app)
  const { spec: app } = await io.readApp({ file, name: null, profiles: [], env: io.env })
  const scaling = app.services.filter(({ scale }) => scale !== null)
  const names = scaling.map(({ name }) => name).join(', ')
  if (flags.service === undefined && scaling.length > 1)
    throw refused(`${flags.app} has several services that scale: ${names}.`, 'Choose one with --service NAME.')
  const spec: ServiceSpec | undefined =
    flags.service === undefined ? scaling[0] : app.services.find(({ name }) => name === flags.service)
  if (spec === undefined)
    throw refused(
      flags.service === undefined ? `No service of ${flags.app} scales.` : `${flags.app} has no service ${flags.service}.`,
      names === '' ? 'Give it x-rubato.scale (docs/app-files.md).' : `Those that scale: ${names}.`,
    )
  if (spec.scale === null)
    throw refused(`The service ${spec.name} does not scale.`, 'Give it x-rubato.scale (docs/app-files.md).')
  return { app: app.name, spec, rules: spec.scale }
}

/** Two CPUs and 4 GiB for ten cents: a common small machine. */
const DEFAULT_POOL = {
  name: 'machine',
  provider: 'assumed',
  capacity: { cpus: '2', memory: '4G', disk: '40G', slots: 50 },
  priceUsdPerHour: 0.1,
  max: 1000,
}

async function readPools(session: Session, file: string | undefined): Promise<readonly Pool[]> {
  let given: unknown = [DEFAULT_POOL]
  if (file !== undefined) {
    const text = await session.io.readText(resolve(session.io.cwd, file))
    if (text === null) throw new CliError(EXIT.notFound, `There is no file ${file}.`, 'Name a YAML file with "pools:".')
    try {
      const value: unknown = parse(text)
      given = typeof value === 'object' && value !== null && 'pools' in value ? value.pools : value
    } catch (error) {
      throw refused(`${file} is no YAML: ${messageOf(error)}`, 'Mend that place; docs/configuration.md shows pools.')
    }
  }
  const checked = poolSchema.array().min(1).safeParse(given)
  if (!checked.success) {
    const [issue] = checked.error.issues
    throw refused(
      `${file}: pools/${issue?.path.join('/') ?? ''}: ${issue?.message ?? ''}`,
      'docs/configuration.md shows how pools are written.',
    )
  }
  return checked.data.map((pool) => {
    if (pool.capacity === null)
      throw refused(
        `${file}: the pool ${pool.name} has no capacity.`,
        'Here no provider tells it: write capacity: {cpus, memory, disk}.',
      )
    return { ...pool, capacity: capacityOf(pool.capacity), priceUsdPerHour: pool.priceUsdPerHour ?? 0 }
  })
}

function startOf(from: string | undefined, trace: Trace, endMs: number): number {
  const { startMs } = trace
  const asked =
    from === undefined ? startMs + LEARN_SHARE * (endMs - startMs) : Date.parse(/Z|[+-]\d\d:\d\d$/.test(from) ? from : `${from}Z`)
  if (Number.isNaN(asked)) throw refused(`--from ${from} is no time.`, 'Like 2026-03-01T00:00.')
  if (asked < startMs || asked >= endMs)
    throw refused(`--from ${from} lies outside the series.`, `It goes from ${isoMinute(startMs)} to ${isoMinute(endMs)}.`)
  return Math.ceil(asked / 60_000) * 60_000
}

async function writeReport(session: Session, file: string, html: string): Promise<void> {
  try {
    await session.io.writeText(file, html)
  } catch (error) {
    throw new CliError(
      EXIT.failed,
      `The report could not be written: ${messageOf(error)}`,
      'Name another place with --report FILE.',
    )
  }
}

function gapRule(text: string): GapRule {
  if (text === 'zero' || text === 'interpolate' || text === 'refuse') return text
  throw refused(`--gaps ${text} means nothing.`, 'Use zero, interpolate or refuse.')
}

function duration(flag: string, text: string): number {
  return durationMs(text, 'Like 500ms, 30s or 4m.', `${flag} ${text}`)
}

function number(flag: string, text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < 0)
    throw refused(`${flag} ${text} is no number of 0 or more.`, 'Like 20.')
  return value
}

function positive(flag: string, text: string): number {
  const value = number(flag, text)
  if (value === 0) throw refused(`${flag} must be more than 0.`, 'Like 20.')
  return value
}

function isoMinute(atMs: number): string {
  return new Date(atMs).toISOString().slice(0, 16).replace('T', ' ')
}

function refused(message: string, hint: string): CliError {
  return new CliError(EXIT.refused, message, hint)
}
