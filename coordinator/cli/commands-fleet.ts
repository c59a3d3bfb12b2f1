/** nodes, node …, pools. */
import type { FleetStatus, MachineView, NodeView, PoolView } from '../api/schemas.ts'
import { EXIT } from './io.ts'
import { ago, bytes, cores, counted, path, type Session } from './session.ts'
import type { Column, Style } from './table.ts'
import type { AddVerb } from './verbs.ts'

export function addFleetCommands(add: AddVerb): void {
  add<{ pool?: string }>('nodes', 'list nodes', (command) => command.option('--pool <pool>', 'only of this pool'))(
    async (session, _args, flags) => {
      const client = await session.client()
      const nodes = await client.list<NodeView>('/v1/nodes', { pool: flags.pool })
      session.table(
        nodes,
        nodeColumns(session.io.clock.now()),
        'No nodes. "rubato token join" prints the command that makes a host one.',
      )
      return EXIT.ok
    },
  )

  add<{ all?: boolean }>('pools', 'list pools and the machines bought from them', (command) =>
    command.option('-a, --all', 'also machines that are gone'),
  )(async (session, _args, flags) => {
    const client = await session.client()
    const pools = await client.list<PoolView>('/v1/pools')
    const machines = await client.list<MachineView>('/v1/machines', { all: flags.all })
    if (session.json) {
      session.print({ pools, machines }, () => [])
      return EXIT.ok
    }
    session.table(pools, POOL_COLUMNS, 'No pools: nothing can be bought. Pools stand in the coordinator’s configuration.')
    if (machines.length > 0) {
      session.io.out('\n')
      session.table(machines, machineColumns(session.io.clock.now()), '')
    }
    return EXIT.ok
  })
}

/** Verbs below `fleet`. */
export function addFleetStatus(add: AddVerb): void {
  add(
    'status',
    'money spent and committed, lead times, pools that rest, and why nothing is bought or given back now',
  )(async (session) => {
    const client = await session.client()
    const fleet = await client.get<FleetStatus>('/v1/fleet')
    const limit = fleet.budgetUsdPerMonth === null ? 'no limit' : `limit $${fleet.budgetUsdPerMonth.toFixed(2)}`
    session.print(fleet, () => [
      `this month: $${fleet.spentUsd.toFixed(2)} spent, $${fleet.projectedUsd.toFixed(2)} with what is committed, ${limit}`,
      ...fleet.pools.map(poolLine(session.io.clock.now())),
      ...fleet.reasons.map(({ subject, text }) => `${subject}: ${text}`),
    ])
    return EXIT.ok
  })
}

function poolLine(nowMs: number): (pool: FleetStatus['pools'][number]) => string {
  return ({ name, counts, joinP90Ms, cooling }) => {
    const machines = Object.entries(counts).map(([phase, count]) => `${count} ${phase}`)
    const lead = joinP90Ms === null ? '' : `, joins in ${Math.round(joinP90Ms / 1000)} s (p90)`
    const rest = cooling === null ? '' : `, rests for ${Math.ceil((cooling.untilMs - nowMs) / 1000)} s: ${cooling.reason}`
    return `pool ${name}: ${machines.join(', ') || 'no machines'}${lead}${rest}`
  }
}

/** Moves an app between pools, and so between clouds. */
export function addMigrateCommand(add: AddVerb): void {
  add<{ to: string; dryRun?: boolean }>('migrate <app>', 'move an app to other pools, without a failed request', (command) =>
    command
      .requiredOption('--to <pools>', 'pools it may be on from now, separated by commas')
      .option('--dry-run', 'tell how many instances would move'),
  )(async (session, [app = ''], flags) => {
    const client = await session.client()
    const answer = await client.send<{ revision: number; moving: number }>('POST', `/v1/apps${path(app)}/migrate`, {
      query: { dryRun: flags.dryRun },
      body: { to: flags.to.split(',').map((name) => name.trim()) },
    })
    const moving = counted(answer.moving, 'instance')
    session.print(answer, () => [
      answer.moving === 0
        ? `No instance of ${app} has to move to ${flags.to}.`
        : flags.dryRun
          ? `${moving} of ${app} would move to ${flags.to}.`
          : `${moving} of ${app} ${answer.moving === 1 ? 'moves' : 'move'} to ${flags.to}: "rubato ps ${app}" shows how far that is.`,
    ])
    return EXIT.ok
  })
}

interface NodeFlags {
  readonly reason?: string
  readonly deadline?: string
  readonly keepMachine?: boolean
  readonly force?: boolean
}

/** Verbs below `node`. */
export function addNodeCommands(add: AddVerb): void {
  add<NodeFlags>('drain <node...>', 'move every instance away, then give the machine back', (command) =>
    command
      .option('--reason <text>', 'for the audit trail')
      .option('--deadline <duration>', 'after it the drain is forced, like 15m')
      .option('--keep-machine', 'do not delete the machine when it is empty'),
  )((session, nodes, flags) =>
    each(session, nodes, 'drains', (node) => [
      'POST',
      `/v1/nodes${path(node)}/drain`,
      { reason: flags.reason, deadline: flags.deadline, deleteMachine: !flags.keepMachine },
    ]),
  )
  add(
    'cordon <node...>',
    'place nothing new on it',
  )((session, nodes) => each(session, nodes, 'is cordoned', (node) => ['POST', `/v1/nodes${path(node)}/cordon`, {}]))
  add(
    'uncordon <node...>',
    'use it again; ends a drain',
  )((session, nodes) => each(session, nodes, 'is in use', (node) => ['POST', `/v1/nodes${path(node)}/uncordon`, {}]))
  add<NodeFlags>('rm <node...>', 'forget a node that is gone for good', (command) =>
    command.option('--force', 'even while it is believed to run instances'),
  )((session, nodes, flags) =>
    each(session, nodes, 'is removed', (node) => [
      'DELETE',
      `/v1/nodes${path(node)}${flags.force ? '?force=true' : ''}`,
      undefined,
    ]),
  )
}

async function each(
  session: Session,
  nodes: readonly (string | undefined)[],
  done: string,
  request: (node: string) => readonly ['POST' | 'DELETE', string, unknown],
): Promise<number> {
  const client = await session.client()
  for (const node of nodes) {
    if (node === undefined) continue
    const [method, url, body] = request(node)
    const answer = await client.send<NodeView | undefined>(method, url, body === undefined ? {} : { body })
    session.print(answer ?? { id: node, removed: true }, () => [
      `${node} ${done}.`,
      ...(answer?.drain
        ? [
            `It is over by ${new Date(answer.drain.deadlineAtMs).toISOString().slice(0, 19)}Z; "rubato nodes" shows how far it is.`,
          ]
        : []),
      ...(answer?.drain?.waits ?? []).map(({ instance, why }) => `${instance} ${why}.`),
    ])
  }
  return EXIT.ok
}

export function nodeColumns(nowMs: number): readonly Column<NodeView>[] {
  return [
    // Ids and addresses are there to be copied: never cut.
    { title: 'NODE', value: ({ id }) => id },
    { title: 'STATE', value: nodeState, style: nodeStyle, shrinkTo: 8 },
    { title: 'POOL', value: ({ pool }) => pool ?? '-', shrinkTo: 5 },
    { title: 'INST', value: ({ instances }) => String(instances), align: 'right' },
    {
      title: 'CPU',
      value: ({ reserved, capacity }) => `${cores(reserved.cpuMillis)}/${capacity.cpuMillis / 1000}`,
      align: 'right',
    },
    { title: 'USED', value: ({ use }) => cores(use?.cpuMillis ?? null), align: 'right' },
    {
      title: 'MEM',
      value: ({ reserved, capacity }) => `${bytes(reserved.memoryBytes)}/${bytes(capacity.memoryBytes)}`,
      align: 'right',
    },
    { title: 'AGE', value: ({ joinedAtMs }) => ago(joinedAtMs, nowMs), align: 'right', dropOrder: 2 },
    { title: 'ADDRESS', value: ({ address }) => address },
    { title: 'HOST', value: ({ hostname }) => hostname, shrinkTo: 8, dropOrder: 1 },
  ]
}

function nodeState({ availability, liveness }: NodeView): string {
  if (liveness !== 'live') return availability === 'active' ? liveness : `${liveness},${availability}`
  return availability === 'active' ? 'live' : availability
}

function nodeStyle({ availability, liveness }: NodeView): Style {
  if (liveness === 'lost') return 'bad'
  return liveness === 'live' && availability === 'active' ? 'good' : 'warn'
}

const POOL_COLUMNS: readonly Column<PoolView>[] = [
  { title: 'POOL', value: ({ name }) => name, shrinkTo: 6 },
  { title: 'PROVIDER', value: ({ provider }) => provider, shrinkTo: 5 },
  {
    title: 'MACHINES',
    value: ({ machines, min, max }) => `${machines.joined}${machines.booting ? `+${machines.booting}` : ''} (${min}-${max})`,
  },
  { title: 'CPU', value: ({ capacity }) => String(capacity.cpuMillis / 1000), align: 'right' },
  { title: 'MEM', value: ({ capacity }) => bytes(capacity.memoryBytes), align: 'right' },
  { title: '$/H', value: ({ priceUsdPerHour }) => String(priceUsdPerHour), align: 'right' },
  { title: 'ZONE', value: ({ zone }) => zone ?? '-', shrinkTo: 4 },
  { title: 'OFFERING', value: ({ offering }) => offering || '-', shrinkTo: 6 },
]

function machineColumns(nowMs: number): readonly Column<MachineView>[] {
  return [
    { title: 'MACHINE', value: ({ id }) => id, shrinkTo: 8 },
    { title: 'POOL', value: ({ pool }) => pool, shrinkTo: 5 },
    { title: 'PHASE', value: ({ phase }) => phase },
    { title: 'NODE', value: ({ node }) => node ?? '-', shrinkTo: 6 },
    { title: 'AGE', value: ({ requestedAtMs }) => ago(requestedAtMs, nowMs), align: 'right' },
    { title: 'NOTE', value: ({ lastError, reason }) => lastError ?? reason, shrinkTo: 6 },
  ]
}
