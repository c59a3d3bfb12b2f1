/** `rubato simulate`: what would this demand have met with, and cost, under which policy? Runs on this machine alone. */
import { resolve } from 'node:path'
import { messageOf } from '../../shared/errors.ts'
import { formatDuration } from '../../shared/units.ts'
import { demandOf, unitFor } from '../simulate/demand.ts'
import { DEFAULT_POLICIES, policiesNamed } from '../simulate/policies.ts'
import { simPool } from '../simulate/pools.ts'
import { METRIC_COLUMNS, type ReportRun, reportHtml } from '../simulate/report-html.ts'
import { type RunSetup, runPolicy } from '../simulate/run.ts'
import { DEFAULT_SERVICE_MODEL, type ServiceModel, serviceTables } from '../simulate/service-model.ts'
import { CliError, EXIT } from './io.ts'
import { durationMs, type Session } from './session.ts'
import { readHistory, readService, readTrace, refused } from './simulate-input.ts'
import { alone, readSettings, unmodelled } from './simulate-settings.ts'
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
  readonly objective?: string
  readonly serviceTime?: string
  readonly unit?: string
  readonly peak: string
  readonly gaps: string
  readonly from?: string
  readonly seed: string
  readonly report: string
}

/** The learning part of a series, unless `--from` says otherwise. */
const LEARN_SHARE = 1 / 3
/** An answer without waiting takes this part of the objective at most, unless --service-time says else: there must be something to keep. */
const SERVICE_SHARE = 1 / 5

export function addSimulate(add: AddVerb): void {
  add<SimulateFlags>('simulate', 'replay a demand series against scaling policies, machines and prices', (command) =>
    command
      .option('--trace <file>', 'CSV "timestamp,value" of the demand, in equal steps')
      .option('--history <service>', 'instead: the demand that the coordinator has measured of app/service')
      .requiredOption('--app <file>', 'app file: scaling rules, reservations')
      .option('--service <name>', 'which of its services; needed where several scale')
      .option(
        '--pools <file>',
        'pools, prices, budget and fleet.* as in the coordinator’s file, which it may be; default: 2 CPUs, 4 GiB, $0.10/h',
      )
      .option('--policy <names>', 'all, or names separated by commas; hpa:60 is the HPA rule at 60 %', DEFAULT_POLICIES)
      .option('--boot <durations>', 'from ordering a machine to its joining; several separated by commas', '120s')
      .option('--start <duration>', 'from placing an instance to its readiness', '10s')
      .option('--objective <duration>', '95 % of the answers within this; default: that of the app file, else 500ms')
      .option(
        '--service-time <duration>',
        'what an answer takes without waiting; default: 100ms, at most a fifth of the objective',
      )
      .option('--unit <number>', 'what one full instance serves, in the unit of the series')
      .option('--peak <instances>', 'instead of --unit: the 99th percentile of the demand is so many instances', '20')
      .option('--gaps <rule>', 'what gaps of more than three steps mean: zero, interpolate or refuse', 'refuse')
      .option('--from <time>', 'replay from here on; what lies before is history to learn from. Default: the first third')
      .option('--seed <number>', 'of the randomness', '1')
      .option('--report <file>', 'HTML report', 'simulation.html'),
  )(async (session, _args, flags) => {
    const givenFromMs = flags.from === undefined ? null : timeOf(flags.from)
    const isHistory = flags.history !== undefined
    const given =
      flags.history === undefined
        ? await readTrace(session, flags.trace, flags.gaps)
        : await readHistory(session, flags.history, { gaps: flags.gaps, fromMs: givenFromMs })
    const { trace } = given
    const { app, spec: whole, rules } = await readService(session, flags.app, flags.service)
    const spec = alone(whole)
    const settings = await readSettings(session.io, flags.pools ?? null)
    const { pools } = settings
    const tables = serviceTables(modelOf(flags, rules.objective?.latencyP95Ms ?? DEFAULT_SERVICE_MODEL.latencyMs))
    const boots = flags.boot.split(',').map((text) => duration('--boot', text))
    const { joinDeadlineMs } = settings.policy.fleet
    const warnings = [
      ...given.warnings,
      ...(boots.some((bootMs) => bootMs >= joinDeadlineMs)
        ? [
            `a coordinator gives up machines that have not joined within ${formatDuration(joinDeadlineMs)}: raise fleet.joinDeadline above what --boot says`,
          ]
        : []),
      ...(settings.ineffective.length === 0
        ? []
        : [`${flags.pools}: without effect in a simulation: ${settings.ineffective.join(', ')}`]),
      ...unmodelled(whole).map((text) => `${flags.app}: ${spec.name}: ${text}`),
    ]
    for (const warning of warnings) session.note(`warning: ${warning}`)
    const perUnit =
      flags.unit !== undefined ? positive('--unit', flags.unit) : isHistory ? 100 : unitFor(trace, positive('--peak', flags.peak))
    const demand = demandOf(trace, perUnit)
    const fromMs = startOf(givenFromMs, trace.startMs, demand.endMs)
    const policies = policiesNamed(flags.policy)
    const runs: ReportRun[] = []
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
          settings: settings.policy,
          usual: given.usual.map((mean) => ({ ...mean, demand: mean.demand / perUnit })),
          startTimeMs: duration('--start', flags.start) + rules.warmUpMs,
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
    const step = formatDuration(trace.stepMs)
    const setup: readonly (readonly [string, string])[] = [
      ['demand', `${trace.name}, ${trace.values.length} steps of ${step}`],
      ...(given.usual.length === 0 ? [] : [['learned from before it', `${given.usual.length} quarters of an hour`] as const]),
      ['replayed', `${isoMinute(fromMs)} to ${isoMinute(demand.endMs)} UTC`],
      ['one instance serves', `${perUnit.toPrecision(4)} of the series’ unit`],
      ['objective', `95 % within ${tables.model.latencyMs} ms`],
      ['service model', `M/M/c, ${tables.model.workers} requests at once, ${tables.model.serviceMs} ms each, an ideal balancer`],
      ['machines', pools.map((pool) => `${pool.name} at $${pool.priceUsdPerHour}/h`).join(', ')],
      [
        'start',
        `${flags.start} from placing an instance${rules.warmUpMs === 0 ? '' : `, and ${formatDuration(rules.warmUpMs)} to warm up`}`,
      ],
      ['between the steps', 'linear, with Poisson noise'],
      ['seed', flags.seed],
      ...warnings.map((warning) => ['warning', warning] as const),
    ]
    await writeReport(session, file, reportHtml({ heading: `${app}/${spec.name} under ${trace.name}`, setup, runs }))
    session.print(
      {
        trace: trace.name,
        stepMs: trace.stepMs,
        warnings,
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
        `Replayed ${isoMinute(fromMs)} to ${isoMinute(demand.endMs)} UTC in steps of ${step}; every decision is in ${file}.`,
      ],
    )
    return EXIT.ok
  })
}

const SHOWN = new Set(['under time %', 'over %', 'late %', 'machine hours', 'USD', 'steps /h'])

function timeOf(from: string): number {
  const atMs = Date.parse(/Z|[+-]\d\d:\d\d$/.test(from) ? from : `${from}Z`)
  if (Number.isNaN(atMs)) throw refused(`--from ${from} is no time.`, 'Like 2026-03-01T00:00.')
  return atMs
}

function startOf(given: number | null, startMs: number, endMs: number): number {
  const asked = given ?? startMs + LEARN_SHARE * (endMs - startMs)
  if (asked < startMs || asked >= endMs)
    throw refused(
      `--from ${isoMinute(asked)} lies outside the series.`,
      `It goes from ${isoMinute(startMs)} to ${isoMinute(endMs)}.`,
    )
  return Math.ceil(asked / 60_000) * 60_000
}

function modelOf({ objective, serviceTime }: SimulateFlags, usualMs: number): ServiceModel {
  const latencyMs = objective === undefined ? usualMs : duration('--objective', objective)
  const serviceMs =
    serviceTime === undefined
      ? Math.min(DEFAULT_SERVICE_MODEL.serviceMs, SERVICE_SHARE * latencyMs)
      : duration('--service-time', serviceTime)
  if (latencyMs <= 3 * serviceMs)
    throw refused(
      `An objective of ${latencyMs} ms is out of reach for a service time of ${serviceMs} ms.`,
      `Its own 95th percentile is ${3 * serviceMs} ms; name more than that with --objective.`,
    )
  return { ...DEFAULT_SERVICE_MODEL, latencyMs, serviceMs }
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
