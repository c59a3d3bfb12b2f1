/** up, down, diff, ps, scale, rollback. */
import { basename, resolve } from 'node:path'
import type { Command } from 'commander'
import { sleep } from '../../shared/clock.ts'
import { type Fault, InputError, RubatoError } from '../../shared/errors.ts'
import { parseDurationMs } from '../../shared/units.ts'
import type { AppView, AppDetail, ChangeView, ExplanationView, InstanceView, PreviewView, ServiceView } from '../api/schemas.ts'
import { resolveConnection } from './connection.ts'
import { CliError, EXIT, type ReadAppResult } from './io.ts'
import { planWithoutCoordinator } from './offline.ts'
import { ago, bytes, cores, path, percent, type Session, serviceParts } from './session.ts'
import type { Column, Style } from './table.ts'
import type { AddVerb } from './verbs.ts'

const FILE_NAMES = ['compose.yaml', 'compose.yml', 'docker-compose.yaml', 'docker-compose.yml']
const POLL_MS = 500
/** A wait that is longer than this is explained. */
const EXPLAIN_AFTER_MS = 5000
/** How many services are asked why they are not ready. */
const ASKED_SERVICES = 5

interface FileFlags {
  readonly file?: readonly string[]
  readonly name?: string
  readonly profile?: readonly string[]
}

interface UpFlags extends FileFlags {
  readonly dryRun?: boolean
  readonly detach?: boolean
  readonly timeout: number
}

export function addAppCommands(add: AddVerb): void {
  const withFile = (command: Command) =>
    command
      .option(
        '-f, --file <file>',
        'app file (a Compose file); default: compose.yaml here; more of them are laid over the first',
        collect,
      )
      .option('-p, --name <name>', 'name of the app; default: the file’s name, else its directory’s')
      .option('--profile <profile...>', 'Compose profiles to include')

  add<UpFlags>('up', 'deploy an app file and wait until it is ready', withFile, (command) =>
    command
      .option('--dry-run', 'show what would change; without a configured coordinator plan on one assumed node')
      .option('-d, --detach', 'do not wait')
      .option('--wait', 'wait until ready or rolled back (default)')
      .option('--timeout <duration>', 'how long to wait, like 90s or 10m; a bare number is seconds', seconds, 600),
  )(async (session, _args, flags, globals) => {
    const app = await readAppFile(session, flags)
    if (!flags.dryRun) return deploy(session, app, flags)
    const connection = await resolveConnection(session.io, globals)
    return connection.configured ? preview(session, app) : planWithoutCoordinator(session, app)
  })

  add<FileFlags>(
    'diff',
    'what "up" would change',
    withFile,
  )(async (session, _args, flags) => preview(session, await readAppFile(session, flags)))

  add<FileFlags & { dryRun?: boolean; detach?: boolean; timeout: number }>(
    'down [app]',
    'stop and remove an app',
    withFile,
    (command) =>
      command
        .option('--dry-run', 'show what would be removed')
        .option('-d, --detach', 'do not wait')
        .option('--timeout <duration>', 'how long to wait, like 90s or 10m; a bare number is seconds', seconds, 600),
  )(async (session, [named], flags) => {
    const name = named ?? flags.name ?? (await readAppFile(session, flags)).spec.name
    const client = await session.client()
    if (flags.dryRun) {
      const plan = await client.send<PreviewView>('DELETE', `/v1/apps${path(name)}`, { query: { dryRun: true } })
      session.print(plan, () => plan.changes)
      return EXIT.ok
    }
    await client.send('DELETE', `/v1/apps${path(name)}`)
    if (!flags.detach) await untilGone(session, name, flags.timeout)
    session.print({ name, removed: !flags.detach }, () => [flags.detach ? `${name} is being removed.` : `${name} is removed.`])
    return EXIT.ok
  })

  add<{ services?: boolean; node?: string }>('ps [app]', 'list instances, or services', (command) =>
    command.option('-s, --services', 'services instead of instances').option('--node <node>', 'only on this node'),
  )(async (session, [app], flags) => {
    const client = await session.client()
    if (app !== undefined) await client.get<AppDetail>(`/v1/apps${path(app)}`)
    const nowMs = session.io.clock.now()
    if (flags.services) {
      session.table(
        await client.list<ServiceView>('/v1/services', { app }),
        SERVICE_COLUMNS,
        'No services. Deploy one with "rubato up -f FILE".',
      )
    } else {
      const instances = await client.list<InstanceView>('/v1/instances', { app, node: flags.node })
      session.table(instances, instanceColumns(nowMs), 'No instances. Deploy an app with "rubato up -f FILE".')
    }
    return EXIT.ok
  })

  add<{ dryRun?: boolean }>(
    'scale <service=count...>',
    'pin services to a count: app/web=3; app/web=auto hands them back',
    (command) => command.option('--dry-run', 'show what would change'),
  )(async (session, wanted, flags) => {
    const steps = wanted.flatMap((text) => (text === undefined ? [] : [scaleStep(text)]))
    const client = await session.client()
    for (const { app, service, replicas } of steps) {
      const answer = await client.send<ServiceView & PreviewView>('POST', `/v1/services${path(app, service)}/scale`, {
        query: { dryRun: flags.dryRun },
        body: { replicas },
      })
      session.print(answer, () =>
        flags.dryRun
          ? answer.changes
          : [`${app}/${service}: ${replicas === null ? `automatic (now ${answer.desired})` : `pinned to ${replicas}`}`],
      )
    }
    return EXIT.ok
  })

  add<{ to?: number; dryRun?: boolean; detach?: boolean; timeout: number }>(
    'rollback <app>',
    'return to the revision before, or to --to',
    (command) =>
      command
        .option('--to <revision>', 'revision to return to', count)
        .option('--dry-run', 'show what would change')
        .option('-d, --detach', 'do not wait')
        .option('--timeout <duration>', 'how long to wait, like 90s or 10m; a bare number is seconds', seconds, 600),
  )(async (session, [app = ''], flags) => {
    const client = await session.client()
    const answer = await client.send<ChangeView & PreviewView>('POST', `/v1/apps${path(app)}/rollback`, {
      query: { dryRun: flags.dryRun },
      body: { revision: flags.to ?? null },
    })
    if (flags.dryRun) {
      session.print(answer, () => previewLines(answer))
      return EXIT.ok
    }
    return flags.detach ? detached(session, answer) : untilReady(session, answer, flags.timeout)
  })
}

/** The app file, with every warning printed: nothing is ignored in silence. */
async function readAppFile(session: Session, flags: FileFlags): Promise<ReadAppResult> {
  const { io } = session
  const [first, ...more] = flags.file ?? []
  const file = first === undefined ? await defaultFile(session) : resolve(io.cwd, first)
  const shownAs = first ?? basename(file)
  const overrides = more.map((name) => resolve(io.cwd, name))
  try {
    const app = await io.readApp({ file, overrides, name: flags.name ?? null, profiles: flags.profile ?? [], env: io.env })
    for (const warning of app.warnings) {
      const where = warning.line === undefined ? shownAs : `${shownAs}:${warning.line}:${warning.column ?? 1}`
      session.note(`${where}: warning: ${warning.message}`)
    }
    return app
  } catch (error) {
    if (error instanceof InputError && error.faults.length > 0) {
      throw new CliError(EXIT.refused, error.faults.map((fault) => faultLine(fault, file, shownAs)).join('\n'))
    }
    if (error instanceof RubatoError && error.code === 'not-found') throw new CliError(EXIT.refused, error.message)
    throw error
  }
}

/** `FILE:LINE:COL: message (hint)`, the app file named as the user named it. */
export function faultLine(fault: Fault, file: string, shownAs: string): string {
  const place = fault.line === undefined ? '' : `:${fault.line}:${fault.column ?? 1}`
  const at = fault.line === undefined && fault.path !== '' ? `${fault.path}: ` : ''
  return `${fault.file === undefined || fault.file === file ? shownAs : fault.file}${place}: ${at}${fault.message}${fault.hint === undefined ? '' : ` (${fault.hint})`}`
}

async function defaultFile({ io }: Session): Promise<string> {
  for (const name of FILE_NAMES) {
    const file = resolve(io.cwd, name)
    if ((await io.modeOf(file)) !== null) return file
  }
  throw new CliError(EXIT.refused, `There is no ${FILE_NAMES[0]} in ${io.cwd}.`, 'Name the app file with -f FILE.')
}

async function preview(session: Session, app: ReadAppResult): Promise<number> {
  const client = await session.client()
  const plan = await client.send<PreviewView>('POST', '/v1/apps', {
    query: { dryRun: true },
    body: { spec: app.spec, source: app.source },
  })
  session.print(plan, () => previewLines(plan))
  return EXIT.ok
}

function previewLines(plan: PreviewView): readonly string[] {
  return [
    ...(plan.changes.length === 0 ? ['Nothing would change.'] : plan.changes),
    ...plan.placement,
    ...plan.warnings.map((text) => `warning: ${text}`),
  ]
}

async function deploy(session: Session, app: ReadAppResult, flags: UpFlags): Promise<number> {
  const client = await session.client()
  const change = await client.send<ChangeView>('POST', '/v1/apps', { body: { spec: app.spec, source: app.source } })
  return flags.detach ? detached(session, change) : untilReady(session, change, flags.timeout)
}

function detached(session: Session, change: ChangeView): number {
  session.print(change, () => [
    change.changed
      ? `${change.name} is at revision ${change.revision}; "rubato ps ${change.name}" shows how far it is.`
      : `${change.name} is unchanged.`,
  ])
  return EXIT.ok
}

/** Watches an app until every service has what it wants, or its update failed or was rolled back. */
async function untilReady(session: Session, change: ChangeView, timeoutS: number): Promise<number> {
  const { io } = session
  const client = await session.client()
  const startedMs = io.clock.monotonicMs()
  for (;;) {
    const app = await client.get<AppView>(`/v1/apps${path(change.name)}`)
    const verdict = judge(app, change.revision)
    if (verdict.kind === 'ready') {
      const count = app.services.reduce((sum, { ready }) => sum + ready, 0)
      const took = ago(startedMs, io.clock.monotonicMs())
      session.print({ ...change, state: 'ready', services: app.services }, () => [
        `${app.name} is ready: revision ${app.revision}, ${counted(app.services.length, 'service')}, ${counted(count, 'instance')}${change.changed ? ` (${took})` : ', unchanged'}.`,
      ])
      return EXIT.ok
    }
    if (verdict.kind === 'failed') {
      session.endProgress()
      throw new CliError(
        EXIT.failed,
        `${app.name}: ${verdict.text}`,
        `"rubato explain ${verdict.service}" says more; "rubato events" what happened.`,
      )
    }
    const waitedMs = io.clock.monotonicMs() - startedMs
    if (waitedMs > timeoutS * 1000) {
      session.endProgress()
      throw new CliError(
        EXIT.timedOut,
        `${app.name} is not ready after ${timeoutS} s: ${verdict.text}`,
        `It goes on; "rubato explain ${verdict.service}" says what it waits for.`,
      )
    }
    const why = waitedMs > EXPLAIN_AFTER_MS ? await whyWaiting(session, verdict.open) : ''
    if (waitedMs >= 1000 || io.stderrIsTty) session.progress(`${verdict.text}${why}`)
    await pause(session)
  }
}

type Verdict =
  | { readonly kind: 'ready' }
  | { readonly kind: 'waiting'; readonly text: string; readonly service: string; readonly open: readonly string[] }
  | { readonly kind: 'failed'; readonly text: string; readonly service: string }

/** Whether a deploy of `revision` is through. Pure. */
export function judge(app: AppView, revision: number): Verdict {
  const first = app.services[0]?.id ?? app.name
  if (app.revision > revision) {
    return {
      kind: 'failed',
      text: `revision ${revision} was replaced by revision ${app.revision} (rolled back, or somebody else deployed)`,
      service: first,
    }
  }
  for (const { id, rollout, job } of app.services) {
    const run = job?.cron === null ? job.runs[0] : undefined
    if (run?.outcome === 'failed') return { kind: 'failed', text: `job ${id} has failed: ${run.message}`, service: id }
    if (!rollout || rollout.toRevision < revision) continue
    if (rollout.phase === 'failed' || rollout.phase === 'rolling-back' || rollout.phase === 'paused') {
      return { kind: 'failed', text: `the update of ${id} is ${rollout.phase}. ${rollout.message}`, service: id }
    }
  }
  const open = app.services.filter(
    ({ updated, completed, desired, rollout, job }) =>
      (updated + completed < desired && (job === null || job.cron === null)) ||
      (rollout !== null && rollout.phase !== 'completed' && rollout.phase !== 'failed'),
  )
  const worst = open[0]
  if (!worst) return { kind: 'ready' }
  return {
    kind: 'waiting',
    text: open.map(({ name, updated, completed, desired }) => `${name} ${updated + completed}/${desired}`).join('  '),
    service: worst.id,
    open: open.map(({ id }) => id),
  }
}

/** What holds an instance up says more than why a service has its count; the first service's last reason is the fallback. */
async function whyWaiting(session: Session, serviceIds: readonly string[]): Promise<string> {
  const client = await session.client()
  let fallback = ''
  for (const id of serviceIds.slice(0, ASKED_SERVICES)) {
    const { reasons } = await client.get<ExplanationView>(`/v1/services${path(...id.split('/'))}/explain`)
    const held = reasons.findLast(({ subject }) => subject !== id)
    if (held) return ` · ${held.subject}: ${held.text}`
    const last = reasons.at(-1)
    if (fallback === '' && last !== undefined && last.code !== 'fixed') fallback = ` · ${last.text}`
  }
  return fallback
}

async function untilGone(session: Session, name: string, timeoutS: number): Promise<void> {
  const client = await session.client()
  const endMs = session.io.clock.monotonicMs() + timeoutS * 1000
  for (;;) {
    try {
      await client.get<AppView>(`/v1/apps${path(name)}`)
    } catch (error) {
      if (error instanceof CliError && error.exitCode === EXIT.notFound) return
      throw error
    }
    const left = await client.list<InstanceView>('/v1/instances', { app: name })
    session.progress(`${counted(left.length, 'instance')} left`)
    if (session.io.clock.monotonicMs() > endMs) {
      throw new CliError(
        EXIT.timedOut,
        `${name} still has ${counted(left.length, 'instance')} after ${timeoutS} s.`,
        `"rubato ps ${name}" shows them.`,
      )
    }
    await pause(session)
  }
}

async function pause({ io }: Session): Promise<void> {
  try {
    await sleep(io.clock, POLL_MS, io.signal)
  } catch (error) {
    if (io.signal.aborted) throw new CliError(EXIT.interrupted, 'Interrupted; the change itself goes on.')
    throw error
  }
}

function scaleStep(text: string): { readonly app: string; readonly service: string; readonly replicas: number | null } {
  const [id = '', to, ...rest] = text.split('=')
  if (to === undefined || rest.length > 0 || !(to === 'auto' || /^\d{1,6}$/.test(to))) {
    throw new CliError(EXIT.refused, `"${text}" is no scaling.`, 'Like shop/web=3, or shop/web=auto.')
  }
  return { ...serviceParts(id), replicas: to === 'auto' ? null : Number(to) }
}

function collect(file: string, earlier: readonly string[] | undefined): readonly string[] {
  return [...(earlier ?? []), file]
}

/** Whole seconds: of a bare number, or of a duration such as 90s or 10m. */
function seconds(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text)
  const ms = parseDurationMs(text)
  if (ms === null || ms <= 0)
    throw new CliError(EXIT.refused, `"${text}" is no duration.`, 'Like 90s or 10m; a bare number is seconds.')
  return Math.ceil(ms / 1000)
}

function counted(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}

function count(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new CliError(EXIT.refused, `"${text}" is no revision.`)
  return Number(text)
}

const SERVICE_COLUMNS: readonly Column<ServiceView>[] = [
  { title: 'SERVICE', value: ({ id }) => id, shrinkTo: 12 },
  {
    title: 'READY',
    value: ({ ready, completed, desired, job }) => `${job === null ? ready : completed}/${desired}`,
    align: 'right',
    style: ({ ready, completed, desired, job }) => ((job === null ? ready : completed) >= desired ? 'good' : 'warn'),
  },
  { title: 'LOAD', value: ({ loadPercent }) => percent(loadPercent), align: 'right' },
  { title: 'SCALE', value: scaleText },
  {
    title: 'PORTS',
    value: ({ ports }) => ports.map(({ port, containerPort }) => `${port}→${containerPort}`).join(',') || '-',
    shrinkTo: 6,
  },
  { title: 'UPDATE', value: ({ rollout, job }) => jobText(job) ?? rollout?.phase ?? '-' },
  { title: 'IMAGE', value: ({ image }) => image, shrinkTo: 10 },
]

/** How its latest run stands, and when the next one is due; null for a service that goes on running. */
function jobText(job: ServiceView['job']): string | null {
  if (job === null) return null
  const [latest] = job.runs
  const state =
    latest === undefined
      ? 'not run yet'
      : latest.outcome === 'running'
        ? `running ${latest.succeeded}/${latest.completions}`
        : latest.outcome
  return job.nextRunAtMs === null ? state : `${state}, next ${new Date(job.nextRunAtMs).toISOString().slice(0, 16)}Z`
}

function scaleText({ pinned, scale, mode, job }: ServiceView): string {
  if (job !== null) return 'job'
  if (pinned !== null) return 'pinned'
  if (mode === 'global') return 'global'
  return scale === null ? 'fixed' : `${scale.min}-${scale.max}`
}

export function instanceColumns(nowMs: number): readonly Column<InstanceView>[] {
  return [
    { title: 'INSTANCE', value: ({ id }) => id, shrinkTo: 12 },
    { title: 'NODE', value: ({ node }) => node ?? '-', shrinkTo: 8 },
    { title: 'STATE', value: stateText, style: stateStyle, shrinkTo: 9 },
    { title: 'LOAD', value: ({ loadPercent }) => percent(loadPercent), align: 'right' },
    { title: 'CPU', value: ({ use }) => cores(use?.cpuMillis ?? null), align: 'right' },
    { title: 'MEM', value: ({ use }) => bytes(use?.memoryBytes ?? null), align: 'right' },
    { title: 'UP', value: ({ startedAtMs }) => ago(startedAtMs, nowMs), align: 'right' },
    { title: 'NOTE', value: ({ message }) => message, shrinkTo: 4 },
  ]
}

function stateText(instance: InstanceView): string {
  if (instance.crashLooping) return `crash-loop ×${instance.restarts}`
  if (instance.goal === 'stop' && instance.phase !== 'stopped')
    return instance.phase === 'draining' ? 'draining' : `${instance.phase}→stop`
  return instance.phase === 'ready' && !instance.healthy ? 'unhealthy' : instance.phase
}

function stateStyle(instance: InstanceView): Style {
  if (instance.crashLooping || instance.phase === 'failed' || instance.phase === 'lost') return 'bad'
  return instance.routable ? 'good' : 'warn'
}
