/** up, down, diff, ps, scale, rollback. */
import { instanceColumns, serviceColumns, waitingRow } from './app-tables.ts'
import { type FileFlags, readChosenApp, withAppFile } from './app-file-option.ts'
import type { AppDetail, ChangeView, InstanceView, PreviewView, ServiceView } from '../api/schemas.ts'
import { resolveConnection } from './connection.ts'
import { CliError, EXIT, type ReadAppResult } from './io.ts'
import { durationMs, type GlobalFlags, path, type Session, serviceParts } from './session.ts'
import type { AddVerb } from './verbs.ts'
import { untilGone, untilReady } from './wait-for-app.ts'

interface UpFlags extends FileFlags {
  readonly dryRun?: boolean
  readonly offline?: boolean
  readonly detach?: boolean
  readonly timeout: number
}

export function addAppCommands(add: AddVerb): void {
  add<UpFlags>('up', 'deploy an app file and wait until it is ready', withAppFile, (command) =>
    command
      .option('--dry-run', 'show what would change; where no coordinator answers, plan on one assumed node')
      .option('--offline', 'with --dry-run: ask no coordinator')
      .option('-d, --detach', 'do not wait')
      .option('--wait', 'wait until ready or rolled back (default)')
      .option('--timeout <duration>', 'how long to wait, like 90s or 10m; a bare number is seconds', seconds, 600),
  )(async (session, _args, flags, globals) => {
    const app = await readChosenApp(session, flags)
    if (!flags.dryRun) return deploy(session, app, flags)
    return flags.offline ? planHere(session, app, null) : previewOrPlan(session, app, globals)
  })

  add<FileFlags>(
    'diff',
    'what "up" would change',
    withAppFile,
  )(async (session, _args, flags) => preview(session, await readChosenApp(session, flags)))

  add<FileFlags & { dryRun?: boolean; detach?: boolean; timeout: number }>(
    'down [app]',
    'stop and remove an app',
    withAppFile,
    (command) =>
      command
        .option('--dry-run', 'show what would be removed')
        .option('-d, --detach', 'do not wait')
        .option('--timeout <duration>', 'how long to wait, like 90s or 10m; a bare number is seconds', seconds, 600),
  )(async (session, [named], flags) => {
    const name = named ?? flags.name ?? (await readChosenApp(session, flags)).spec.name
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
        serviceColumns(nowMs),
        'No services. Deploy one with "rubato up -f FILE".',
      )
    } else {
      const instances = await client.list<InstanceView>('/v1/instances', { app, node: flags.node })
      // Of a service that waits for another there is no instance to list yet.
      const services = session.json || flags.node !== undefined ? [] : await client.list<ServiceView>('/v1/services', { app })
      const waiting = services.filter(({ desired, running, pending }) => desired > 0 && running + pending === 0)
      session.table(
        [...instances, ...waiting.map(waitingRow)],
        instanceColumns(nowMs),
        'No instances. Deploy an app with "rubato up -f FILE".',
      )
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

/** As `up` would do it: by the coordinator. Only where nothing names one and none answers here either, a plan of our own. */
async function previewOrPlan(session: Session, app: ReadAppResult, globals: GlobalFlags): Promise<number> {
  const { configured, url } = await resolveConnection(session.io, globals)
  try {
    return await preview(session, app)
  } catch (error) {
    if (configured || !(error instanceof CliError) || error.exitCode !== EXIT.unreachable) throw error
    return planHere(session, app, url)
  }
}

/** The planner is loaded when it is needed: most runs ask a coordinator. */
async function planHere(session: Session, app: ReadAppResult, silentUrl: string | null): Promise<number> {
  return (await import('./offline.ts')).planWithoutCoordinator(session, app, silentUrl)
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

function scaleStep(text: string): { readonly app: string; readonly service: string; readonly replicas: number | null } {
  const [id = '', to, ...rest] = text.split('=')
  if (to === undefined || rest.length > 0 || !(to === 'auto' || /^\d{1,6}$/.test(to))) {
    throw new CliError(EXIT.refused, `"${text}" is no scaling.`, 'Like shop/web=3, or shop/web=auto.')
  }
  return { ...serviceParts(id), replicas: to === 'auto' ? null : Number(to) }
}

/** Whole seconds: of a bare number, or of a duration such as 90s or 10m. */
function seconds(text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text)
  return Math.ceil(durationMs(text, 'Like 90s or 10m; a bare number is seconds.') / 1000)
}

function count(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new CliError(EXIT.refused, `"${text}" is no revision.`)
  return Number(text)
}
