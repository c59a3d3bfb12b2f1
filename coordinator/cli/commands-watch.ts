/** events, logs, top, explain. */
import { sleep } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { LogLine } from '../api/deps.ts'
import type { EventView, ExplanationView, InstanceView, NodeView, ServiceView, StatusView } from '../api/schemas.ts'
import { topServiceColumns } from './app-tables.ts'
import type { ApiClient } from './client.ts'
import { CliError, EXIT } from './io.ts'
import { linesOf } from './lines.ts'
import { path, type Session, serviceParts } from './session.ts'
import { printable, renderTable, wrap } from './table.ts'
import type { AddVerb } from './verbs.ts'
import { nodeColumns } from './commands-fleet.ts'

const RECONNECT_MS = 1000

export function addWatchCommands(add: AddVerb): void {
  add<{ follow?: boolean; tail: string; subject?: string; type?: string; warnings?: boolean }>(
    'events',
    'what happened, who did it and why',
    (command) =>
      command
        .option('-f, --follow', 'go on as things happen')
        .option('--tail <count>', 'how many of the newest to begin with', '50')
        .option('--subject <prefix>', 'only about ids that begin so')
        .option('--type <type>', 'only of this type, like instance.placed')
        .option('--warnings', 'only warnings and errors, among those that --tail looks at'),
  )(async (session, _args, flags) => {
    const client = await session.client()
    const filter = { subject: flags.subject, type: flags.type }
    const isWanted = ({ severity }: EventView) => !flags.warnings || severity !== 'info'
    if (flags.follow) return followEvents(session, client, { ...filter, tail: flags.tail }, isWanted)
    const found = await client.get<{ items: EventView[] }>('/v1/events', { ...filter, limit: flags.tail })
    const items = found.items.filter(isWanted)
    session.print(items, () => items.map((event) => eventLine(session, event)))
    return EXIT.ok
  })

  add<{ follow?: boolean; tail: string }>(
    'logs <target>',
    'log lines of an instance, or of all instances of a service',
    (command) =>
      command
        .option('-f, --follow', 'go on as lines come')
        .option('--tail <count>', 'how many of the newest to begin with', '200'),
  )(async (session, [target = ''], flags) => {
    if (!/^\d{1,6}$/.test(flags.tail))
      throw new CliError(EXIT.refused, `"${flags.tail}" is no number of lines.`, 'Like --tail 50.')
    const client = await session.client()
    const instances = await instancesNamed(client, target)
    const shortOf = (id: string) => (instances.length === 1 ? '' : `${id.split('/').slice(1, 3).join('/')} | `)
    const outcomes = await Promise.all(
      instances.map((id) =>
        printLog(session, client, id, shortOf(id), { follow: flags.follow ? true : undefined, tail: flags.tail }),
      ),
    )
    return outcomes.every(Boolean) ? EXIT.ok : EXIT.failed
  })

  add<{ once?: boolean; interval: string }>('top', 'nodes and services with their load, live', (command) =>
    command
      .option('--once', 'print once (the default where there is no terminal)')
      .option('--interval <seconds>', 'between two looks', '2'),
  )(async (session, _args, flags) => {
    const { io } = session
    const client = await session.client()
    const intervalMs = Math.max(0.2, Number(flags.interval) || 2) * 1000
    if (session.json || flags.once || !io.stdoutIsTty) {
      const view = await lookAround(client)
      session.print(view, () => topLines(session, view))
      return EXIT.ok
    }
    for (;;) {
      const lines = topLines(session, await lookAround(client))
      const shown = io.rows === null ? lines : lines.slice(0, Math.max(1, io.rows - 1))
      io.out(`\u001b[H${shown.map((line) => `${line}\u001b[K\n`).join('')}\u001b[J`)
      try {
        await sleep(io.clock, intervalMs, io.signal)
      } catch (error) {
        if (io.signal.aborted) return EXIT.ok
        throw error
      }
    }
  })

  add(
    'explain <target>',
    'why a service has its count, why an instance is where it is or waits',
  )(async (session, [target = '']) => {
    const client = await session.client()
    const explained = await client.get<ExplanationView>(explainPath(target))
    session.print(explained, () => [
      `${explained.subject}: ${explained.summary}`,
      ...explained.reasons.map(
        ({ subject, text }) => `  ${subject === explained.subject ? '' : `${subject}: `}${printable(text)}`,
      ),
    ])
    return EXIT.ok
  })
}

function explainPath(target: string): string {
  const parts = target.split('/')
  if (parts.length === 2) return `/v1/services${path(...parts)}/explain`
  if (parts.length === 4) return `/v1/instances${path(parts.join('.'))}/explain`
  // The container's name is an instance's name too.
  if (parts.length === 1 && /^[^.]+\..+\.\d+\.\d+$/.test(target)) return `/v1/instances${path(target)}/explain`
  throw new CliError(
    EXIT.refused,
    `"${target}" is neither a service nor an instance.`,
    'Like shop/web, or shop/web/1/2 ("rubato ps" lists them).',
  )
}

async function instancesNamed(client: ApiClient, target: string): Promise<readonly string[]> {
  const parts = target.split('/')
  if (parts.length === 4) return [target]
  const { app, service } = serviceParts(target)
  const found = await client.list<InstanceView>('/v1/instances', { app, service })
  const placed = found.filter(({ node }) => node !== null)
  // A service that is not there is said so, not sent on to "explain".
  if (placed.length === 0) {
    await client.get(`/v1/services${path(app, service)}`)
    throw new CliError(EXIT.notFound, `${target} has no instance on any node.`, `"rubato explain ${target}" says why.`)
  }
  return placed.map(({ id }) => id)
}

/** False when the log broke off. */
async function printLog(
  session: Session,
  client: ApiClient,
  id: string,
  prefix: string,
  query: { readonly follow: boolean | undefined; readonly tail: string },
): Promise<boolean> {
  const { io } = session
  try {
    const response = await client.open(`/v1/instances${path(id.split('/').join('.'))}/logs`, query, {}, io.signal)
    for await (const text of linesOf(response)) {
      const line = JSON.parse(text) as LogLine & { error?: string }
      if (line.error !== undefined) {
        session.note(`${id}: ${line.error}`)
        return false
      }
      if (session.json) io.out(`${JSON.stringify({ instance: id, ...line })}\n`)
      else if (line.stream === 'stderr' && prefix === '') io.err(`${visible(line.text)}\n`)
      else io.out(`${prefix}${visible(line.text)}\n`)
    }
    return true
  } catch (error) {
    if (io.signal.aborted) return true
    if (prefix === '' || !(error instanceof CliError)) throw error
    session.note(`${id}: ${error.message}`)
    return false
  }
}

/** Keeps tabs and colours of the application's own lines, nothing that moves the cursor or sets titles. */
function visible(text: string): string {
  return text
    .replaceAll(/\u001b\[[0-9;]*m/g, (code) => code.replace('\u001b', '\ue000'))
    .replaceAll(/[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/g, '')
    .replaceAll('\ue000', '\u001b')
}

async function followEvents(
  session: Session,
  client: ApiClient,
  query: { readonly subject: string | undefined; readonly type: string | undefined; readonly tail: string },
  isWanted: (event: EventView) => boolean,
): Promise<number> {
  const { io } = session
  let lastSeq: number | null = null
  for (;;) {
    try {
      const resume: Record<string, string> = lastSeq === null ? {} : { 'last-event-id': String(lastSeq) }
      const response = await client.open(
        '/v1/events',
        { ...query, follow: true },
        { accept: 'text/event-stream', ...resume },
        io.signal,
      )
      for await (const text of linesOf(response)) {
        if (!text.startsWith('data: ')) continue
        const event = JSON.parse(text.slice('data: '.length)) as EventView
        lastSeq = event.seq
        if (isWanted(event)) io.out(`${session.json ? JSON.stringify(event) : eventLine(session, event)}\n`)
      }
      session.note('The coordinator closed the stream; connecting again.')
    } catch (error) {
      if (io.signal.aborted) return EXIT.ok
      if (lastSeq === null || (error instanceof CliError && error.exitCode !== EXIT.unreachable)) throw error
      session.note(`${messageOf(error)} Connecting again.`)
    }
    try {
      await sleep(io.clock, RECONNECT_MS, io.signal)
    } catch (error) {
      if (io.signal.aborted) return EXIT.ok
      throw error
    }
  }
}

/** The event on as many lines as it needs: the reason stands at its end. An operator is named, parts of ours are not: the type tells. */
function eventLine({ paint, io }: Session, event: EventView): string {
  const time = new Date(event.atMs).toISOString().replace('T', ' ').slice(0, 19)
  const style = event.severity === 'error' ? 'bad' : event.severity === 'warning' ? 'warn' : 'plain'
  const by = event.actor.startsWith('operator:') ? ` (${event.actor.slice('operator:'.length)})` : ''
  // Many a message begins with its subject.
  const isRepeated = [' ', ':'].some((after) => event.message.startsWith(event.subject + after))
  const subject = isRepeated ? '' : `${event.subject}  `
  const plain = printable(`${event.type}  ${subject}${event.message}${by}`)
  const indent = ' '.repeat(time.length + 2)
  const room = io.columns === null ? Number.POSITIVE_INFINITY : Math.max(40, io.columns - indent.length)
  const [first = '', ...more] = wrap(plain, room)
  return [`${paint('faint', time)}  ${paint(style, first)}`, ...more.map((line) => `${indent}${paint(style, line)}`)].join('\n')
}

interface Around {
  readonly status: StatusView
  readonly nodes: readonly NodeView[]
  readonly services: readonly ServiceView[]
}

async function lookAround(client: ApiClient): Promise<Around> {
  const [status, nodes, services] = await Promise.all([
    client.get<StatusView>('/v1/status'),
    client.list<NodeView>('/v1/nodes'),
    client.list<ServiceView>('/v1/services'),
  ])
  return { status, nodes, services }
}

function topLines({ io, paint }: Session, { status, nodes, services }: Around): readonly string[] {
  const { counts } = status
  const width = io.columns
  const budget = status.budgetUsdPerMonth === null ? '' : ` of $${status.budgetUsdPerMonth}`
  return [
    `rubato ${status.version}  nodes ${counts.liveNodes}/${counts.nodes}  instances ${counts.ready}/${counts.instances} ready, ${counts.pending} pending  machines ${counts.machines}  spent $${status.spentUsdThisMonth.toFixed(2)}${budget}`,
    ...(status.frozen ? [paint('warn', `frozen: ${printable(status.frozen.reason)}`)] : []),
    '',
    ...renderTable(nodes, nodeColumns(status.nowMs), { width, paint }),
    '',
    ...renderTable(services, topServiceColumns(status.nowMs), { width, paint }),
  ]
}
