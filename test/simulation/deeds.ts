/**
 * What may happen in a random life of a cluster: requests of users and faults of everything around it, in kinds that a seed
 * switches on or off as wholes (swarm testing: a cluster under few kinds of faults gets into states that it never gets into
 * under all). A deed that is not possible at this moment does nothing.
 */
import { drainNode, evenIfChanged, uncordonNode } from '../../coordinator/fleet/node-actions.ts'
import { ConflictError, NotFoundError, RetryableError, UnavailableError } from '../../shared/errors.ts'
import type { UpdateRules } from '../../shared/model/app.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { Random } from '../../shared/random.ts'
import { anApp } from './apps.ts'
import { CoordinatorDied, type SimCluster } from './cluster.ts'
import { containersOf } from './invariants.ts'

/** How often it is looked whether anything has moved. */
const STILL_STEP_MS = 1_000
/** The least that a strict singleton may be allowed without a coordinator. */
const SHORT_STRICT_MS = 15_000

export interface Chaos {
  readonly cluster: SimCluster
  readonly random: Random
  /** Hosts that were there from the beginning. */
  readonly names: readonly string[]
  readonly hasMachines: boolean
  /** Only voluntary disruption: what serves is counted after every step (I4). */
  readonly calm: boolean
  readonly strictMs: number
  /** Revision counters, so that each deploy differs. */
  version: number
  readonly apps: Set<string>
  readonly keys: string[]
}

export type Deed = (chaos: Chaos) => Promise<void> | void

export interface Kind {
  readonly name: string
  /** Involuntary disruption: not in calm seeds. */
  readonly disrupts: boolean
  /** Only where machines can be bought. */
  readonly cloud?: true
  /** With weights. */
  readonly deeds: readonly (readonly [number, Deed])[]
}

export const KINDS: readonly Kind[] = [
  {
    name: 'deploys',
    disrupts: false,
    deeds: [
      [3, (chaos) => whileLed(chaos, () => deploy(chaos, pick(chaos, ['shop', 'blog', 'lock'])))],
      [1, (chaos) => whileLed(chaos, () => remove(chaos, pick(chaos, ['blog', 'lock'])))],
    ],
  },
  { name: 'counts', disrupts: false, deeds: [[3, (chaos) => whileLed(chaos, () => scale(chaos))]] },
  {
    name: 'load',
    disrupts: true,
    deeds: [[3, (chaos) => void chaos.cluster.demand.set('shop/web', upTo(chaos, 600))]],
  },
  { name: 'keys', disrupts: false, deeds: [[3, (chaos) => whileLed(chaos, () => createOrRevoke(chaos))]] },
  { name: 'drains', disrupts: false, deeds: [[3, (chaos) => whileLed(chaos, () => drainOrReturn(chaos))]] },
  {
    name: 'coordinator crashes',
    disrupts: false,
    deeds: [
      [3, killOrStartCoordinator],
      [3, killAtAnEffect],
    ],
  },
  {
    name: 'take-overs',
    disrupts: false,
    deeds: [
      [2, (chaos) => (chaos.cluster.coordinator ? orFails(chaos, () => chaos.cluster.takeOver()) : undefined)],
      [4, (chaos) => chaos.cluster.reachOnly(anyHost(chaos), pick(chaos, ['old', 'new'] as const))],
      [2, ({ cluster }) => cluster.endOldLeader()],
    ],
  },
  {
    name: 'store',
    disrupts: false,
    deeds: [
      [1, ({ cluster }) => void Object.assign(cluster.store, { away: !cluster.store.away })],
      [1, ({ cluster }) => void Object.assign(cluster.store, { full: !cluster.store.full })],
      [2, (chaos) => void Object.assign(chaos.cluster.store, { conflictRate: pick(chaos, [0, 0.1, 0.5]) })],
      [1, (chaos) => void Object.assign(chaos.cluster.store, { slowMs: pick(chaos, [0, 50, 2_000]) })],
      [3, ({ cluster }) => void Object.assign(cluster.store, { away: false, full: false })],
    ],
  },
  {
    name: 'agent crashes',
    disrupts: true,
    deeds: [
      [4, killOrStartAgent],
      [2, killAgentAtAnEffect],
    ],
  },
  {
    name: 'partitions',
    disrupts: true,
    deeds: [
      [4, cutOrHeal],
      [1, swizzle],
    ],
  },
  {
    name: 'one-way cuts',
    disrupts: true,
    deeds: [
      [2, (chaos) => chaos.cluster.network.cutOneWay(anyHost(chaos), pick(chaos, ['up', 'down'] as const))],
      [3, (chaos) => chaos.cluster.heal(anyHost(chaos))],
    ],
  },
  {
    name: 'bad links',
    disrupts: true,
    deeds: [
      [2, (chaos) => void chaos.cluster.network.drop(anyHost(chaos))],
      [2, (chaos) => chaos.cluster.network.halfOpen(anyHost(chaos), pick(chaos, ['up', 'down'] as const))],
      [2, (chaos) => chaos.cluster.network.loseNext(anyHost(chaos), 'down')],
    ],
  },
  {
    name: 'odd messages',
    disrupts: false,
    deeds: [
      [2, (chaos) => chaos.cluster.network.duplicateNext(anyHost(chaos), pick(chaos, ['up', 'down'] as const))],
      [2, (chaos) => chaos.cluster.network.slow(anyHost(chaos), pick(chaos, [0, 200, 3_000]))],
    ],
  },
  {
    name: 'engines',
    disrupts: true,
    deeds: [
      [2, engineDownOrUp],
      [2, (chaos) => void Object.assign(chaos.cluster.host(anyHost(chaos)).engine, { hangMs: pick(chaos, [0, 0, 20_000]) })],
      [1, (chaos) => chaos.cluster.host(anyHost(chaos)).engine.restart()],
    ],
  },
  { name: 'container crashes', disrupts: true, deeds: [[4, crashContainer]] },
  {
    name: 'pulls',
    disrupts: false,
    deeds: [
      [2, failPull],
      [2, (chaos) => void Object.assign(chaos.cluster.host(anyHost(chaos)).engine, { pullMs: pick(chaos, [500, 500, 15_000]) })],
    ],
  },
  {
    name: 'name conflicts',
    disrupts: false,
    deeds: [[2, (chaos) => chaos.cluster.host(anyHost(chaos)).engine.failNext('create', new ConflictError('name is taken'))]],
  },
  {
    name: 'full disks',
    disrupts: false,
    deeds: [
      [2, (chaos) => void Object.assign(chaos.cluster.host(anyHost(chaos)), { diskFull: true })],
      [3, (chaos) => void Object.assign(chaos.cluster.host(anyHost(chaos)), { diskFull: false })],
    ],
  },
  {
    name: 'wall clocks',
    disrupts: false,
    deeds: [
      [
        3,
        (chaos) =>
          chaos.cluster.jumpWall(pick(chaos, ['coordinator', ...chaos.names]), Math.round((chaos.random.next() - 0.5) * 7.2e6)),
      ],
    ],
  },
  {
    name: 'cloud answers',
    disrupts: false,
    cloud: true,
    deeds: [
      [
        2,
        ({ cluster }) =>
          void Object.assign(cluster.provider.levers, { loseCreateReplies: cluster.provider.levers.loseCreateReplies + 1 }),
      ],
      [1, ({ cluster }) => void Object.assign(cluster.provider.levers, { hangCreates: cluster.provider.levers.hangCreates + 1 })],
      [
        2,
        (chaos) =>
          void Object.assign(chaos.cluster.provider.levers, {
            failCalls: chaos.cluster.provider.levers.failCalls + 1 + upTo(chaos, 3),
          }),
      ],
      [1, (chaos) => void Object.assign(chaos.cluster.provider.levers, { jitterMs: pick(chaos, [0, 2_000, 20_000]) })],
    ],
  },
  {
    name: 'cloud lists',
    disrupts: false,
    cloud: true,
    deeds: [
      [
        3,
        (chaos) =>
          void Object.assign(chaos.cluster.provider.levers, {
            listMode: pick(chaos, ['normal', 'empty', 'partial', 'fails'] as const),
          }),
      ],
      [1, (chaos) => void Object.assign(chaos.cluster.provider.levers, { listLagMs: pick(chaos, [0, 30_000, 200_000]) })],
    ],
  },
  {
    name: 'cloud shortage',
    disrupts: false,
    cloud: true,
    deeds: [
      [2, (chaos) => void Object.assign(chaos.cluster.provider.levers, { quota: pick(chaos, [Number.POSITIVE_INFINITY, 0, 1]) })],
      [2, ({ cluster }) => void cluster.provider.levers.soldOut.add('small')],
      [2, ({ cluster }) => void cluster.provider.levers.soldOut.clear()],
    ],
  },
  {
    name: 'cloud machines',
    disrupts: true,
    cloud: true,
    deeds: [
      [2, ({ cluster }) => void Object.assign(cluster.provider.levers, { neverJoins: !cluster.provider.levers.neverJoins })],
      [2, (chaos) => void Object.assign(chaos.cluster.provider.levers, { joinLagMs: pick(chaos, [0, 60_000, 130_000]) })],
      [2, destroyMachine],
      [1, plantForeign],
    ],
  },
]

/** A swarm's choice: about half of the kinds, each with a weight of its own. */
export function chooseKinds(chaos: Chaos): readonly (readonly [number, Deed])[] {
  const deeds: (readonly [number, Deed])[] = []
  const possible = KINDS.filter((kind) => (!chaos.calm || !kind.disrupts) && (chaos.hasMachines || !kind.cloud))
  const names: string[] = []
  for (const kind of possible) {
    const isOn = chaos.random.next() < 0.5
    const factor = 0.3 + 2 * chaos.random.next()
    if (!isOn) continue
    names.push(kind.name)
    for (const [weight, deed] of kind.deeds) deeds.push([weight * factor, deed])
  }
  chaos.cluster.trace.line(`kinds: ${names.join(', ') || 'none'}`)
  return deeds
}

export async function something(chaos: Chaos, deeds: readonly (readonly [number, Deed])[]): Promise<void> {
  const total = deeds.reduce((sum, [weight]) => sum + weight, 0)
  let at = chaos.random.next() * total
  for (const [weight, deed] of deeds) {
    at -= weight
    if (at < 0) return deed(chaos)
  }
}

export async function deploy(chaos: Chaos, name: string, isGood = false): Promise<void> {
  chaos.version += 1
  const image = `${name}:${chaos.version}`
  // Now and then a revision that never becomes healthy: it must be rolled back. A stop-first one would serve less meanwhile.
  if (!isGood && chaos.version > 1 && chaos.random.next() < 0.25) chaos.cluster.badImages.add(image)
  const update: Partial<UpdateRules> = {
    parallelism: 1 + upTo(chaos, 2),
    order: chaos.calm ? 'start-first' : pick(chaos, ['start-first', 'stop-first'] as const),
    progressDeadlineMs: isGood ? 900_000 : 20_000,
  }
  await chaos.cluster.deploy(
    anApp({
      name,
      image,
      update,
      replicas: name === 'lock' ? 1 : 2,
      ...(name === 'shop' ? { scale: [1, 8] } : {}),
      ...(name === 'lock' ? strictRules(chaos, isGood) : {}),
    }),
  )
  chaos.apps.add(name)
}

/** Its rules change with its revisions, in cuts too. Drawn from nothing: other deeds stay what they are. */
function strictRules({ strictMs, version }: Chaos, isGood: boolean): { readonly strictMs?: number } {
  if (isGood || version % 3 === 0) return { strictMs }
  return version % 3 === 1 ? { strictMs: SHORT_STRICT_MS } : {}
}

async function remove(chaos: Chaos, name: string): Promise<void> {
  if (!chaos.apps.delete(name)) return
  await chaos.cluster.remove(name)
}

async function scale(chaos: Chaos): Promise<void> {
  if (chaos.apps.has('blog')) await chaos.cluster.scale('blog', 'web', 1 + upTo(chaos, 5))
}

async function createOrRevoke(chaos: Chaos): Promise<void> {
  if (chaos.keys.length > 0 && chaos.random.next() < 0.5) {
    const [id] = chaos.keys.splice(upTo(chaos, chaos.keys.length), 1)
    if (id) await chaos.cluster.revokeKey(id)
  } else chaos.keys.push(await chaos.cluster.createKey(`key-${chaos.version++}`))
}

async function killOrStartCoordinator(chaos: Chaos): Promise<void> {
  if (chaos.cluster.coordinator) chaos.cluster.killCoordinator()
  else await orFails(chaos, () => chaos.cluster.startCoordinator())
}

/** Right before or after one of the next commits, cloud calls or messages. */
function killAtAnEffect(chaos: Chaos): void {
  const { cluster } = chaos
  let left = 1 + upTo(chaos, 12)
  cluster.onEffect = (effect) => {
    if (effect.who !== 'coordinator') return
    left -= 1
    if (left > 0) return
    cluster.onEffect = null
    cluster.trace.line(`dies ${effect.when} ${effect.kind} ${effect.what}`)
    cluster.killCoordinator()
  }
}

function killAgentAtAnEffect(chaos: Chaos): void {
  const { cluster } = chaos
  let left = 1 + upTo(chaos, 6)
  const name = anyHost(chaos)
  cluster.onEffect = (effect) => {
    if (effect.who !== name) return
    left -= 1
    if (left > 0) return
    cluster.onEffect = null
    cluster.trace.line(`${name} dies ${effect.when} ${effect.kind} ${effect.what}`)
    cluster.killAgent(name)
  }
}

function killOrStartAgent(chaos: Chaos): void {
  const host = chaos.cluster.host(anyHost(chaos))
  if (host.life?.alive) chaos.cluster.killAgent(host.name)
  else if (!host.left) chaos.cluster.startAgent(host.name)
}

function cutOrHeal(chaos: Chaos): void {
  const name = anyHost(chaos)
  if (chaos.random.next() < 0.5) chaos.cluster.partition(name)
  else chaos.cluster.heal(name)
}

/** Swizzle-clogging: some links stop one by one, and go on one by one in another order. */
async function swizzle(chaos: Chaos): Promise<void> {
  const some = chaos.names.filter(() => chaos.random.next() < 0.6)
  for (const name of some) {
    chaos.cluster.partition(name)
    await chaos.cluster.advance(upTo(chaos, 2_000))
  }
  for (const name of shuffled(chaos, some)) {
    await chaos.cluster.advance(upTo(chaos, 4_000))
    chaos.cluster.heal(name)
  }
}

function engineDownOrUp(chaos: Chaos): void {
  const { engine, name } = chaos.cluster.host(anyHost(chaos))
  engine.down = !engine.down
  chaos.cluster.trace.line(`${name} engine ${engine.down ? 'down' : 'up'}`)
}

function crashContainer(chaos: Chaos): void {
  const running = [...chaos.cluster.running()]
  const found = running[upTo(chaos, running.length)]
  if (found) chaos.cluster.host(found[1]).engine.crash(found[0], 1)
}

function failPull(chaos: Chaos): void {
  const error = pick(chaos, [
    new RetryableError('registry answers 503'),
    new NotFoundError('no such image'),
    new UnavailableError('down'),
  ])
  chaos.cluster.host(anyHost(chaos)).engine.failNext('pull', error, 1 + upTo(chaos, 3))
}

/** As a person at the cloud's console would. */
function destroyMachine(chaos: Chaos): void {
  const ours = chaos.cluster.provider.live().filter((machine) => machine.request.userData !== '')
  const victim = ours[upTo(chaos, ours.length)]
  if (victim) chaos.cluster.provider.destroy(victim.name)
}

/** A machine of somebody else, and now and then one that carries our tag and that we never ordered. */
function plantForeign(chaos: Chaos): void {
  const clusterId = chaos.cluster.coordinator?.cluster.id
  if (clusterId === undefined) return
  const isOurs = chaos.random.next() < 0.5
  chaos.version += 1
  const tags = { 'rubato-cluster': isOurs ? clusterId : 'another' }
  chaos.cluster.provider.plant({ name: `${isOurs ? clusterId : 'another'}-m${chaos.version}`, tags })
}

async function drainOrReturn(chaos: Chaos): Promise<void> {
  if (chaos.random.next() < 0.5) return returnNodes(chaos)
  const nodes = [...chaos.cluster.lead().state.snapshot.all('node').values()]
  const node = nodes[upTo(chaos, nodes.length)]
  if (!node) return
  const { clock } = chaos.cluster
  // What cannot move until the deadline is stopped: that would break what calm seeds count on.
  const deadlineMs = chaos.calm ? 3_600_000 : 60_000
  const drain = { by: 'operator:sim', reason: 'chaos', deadlineMs, deleteMachine: false }
  await chaos.cluster.drive(evenIfChanged(() => drainNode({ state: chaos.cluster.lead().state, clock }, node.id, drain)))
}

export async function returnNodes({ cluster }: Chaos): Promise<void> {
  const { state } = cluster.lead()
  const returned = (id: NodeId) => evenIfChanged(() => uncordonNode({ state, clock: cluster.clock }, id, 'operator:sim'))
  for (const node of [...state.snapshot.all('node').values()])
    if (node.drain?.deleteMachine !== true && node.availability !== 'active')
      await cluster.drive(returned(node.id).catch(() => undefined))
}

/** Every fault ends. */
export function noMoreFaults({ cluster, hasMachines }: Chaos): void {
  cluster.onEffect = null
  cluster.endOldLeader()
  Object.assign(cluster.store, { away: false, full: false, conflictRate: 0, slowMs: 0 })
  const { levers } = cluster.provider
  Object.assign(levers, { loseCreateReplies: 0, hangCreates: 0, failCalls: 0, listMode: 'normal', neverJoins: false })
  Object.assign(levers, { quota: Number.POSITIVE_INFINITY, joinLagMs: 0, listLagMs: 0, jitterMs: 0 })
  if (hasMachines) levers.soldOut.clear()
  for (const host of [...cluster.hosts.values()]) {
    cluster.heal(host.name)
    cluster.network.slow(host.name, 0)
    cluster.network.tamperNoMore(host.name)
    Object.assign(host.engine, { down: false, hangMs: 0, pullMs: 500 })
    host.engine.failNoMore()
    host.diskFull = false
    if (!host.life?.alive && !host.left && host.nodeId !== null) cluster.startAgent(host.name)
  }
}

/**
 * I10: it is as wanted, and from then on nothing moves, `withinMs` after the faults have ended. What evens out later than the
 * rest within that time (a node that came back empty gets instances, one at a time) is still on the way.
 */
export async function settlesAndStays(cluster: SimCluster, withinMs: number, forMs: number): Promise<void> {
  const endMs = cluster.clock.monotonicMs() + withinMs
  for (;;) {
    await cluster.settle(Math.max(0, endMs - cluster.clock.monotonicMs()))
    const sinceMs = cluster.clock.monotonicMs()
    const moved = await movesWithin(cluster, forMs)
    if (moved === null) return
    if (moved.atMs >= endMs) throw new Error(`I10: ${Math.round(moved.atMs - sinceMs)} ms after it had settled: ${moved.what}`)
  }
}

/** The first thing that moves in that time; null when nothing does. */
async function movesWithin(cluster: SimCluster, forMs: number): Promise<{ atMs: number; what: string } | null> {
  const before = containersOf(cluster)
  let told = cluster.disk.events.length
  const endMs = cluster.clock.monotonicMs() + forMs
  while (cluster.clock.monotonicMs() < endMs) {
    await cluster.advance(STILL_STEP_MS)
    const atMs = cluster.clock.monotonicMs()
    // That a hold ends is told late; it changes nothing that runs.
    const news = cluster.disk.events.slice(told).filter((event) => event.type !== 'cluster.thawed')
    told = cluster.disk.events.length
    if (news.length > 0) return { atMs, what: news.map((event) => `${event.type} ${event.message}`).join('; ') }
    const after = containersOf(cluster)
    if (after !== before) return { atMs, what: `${before} became ${after}` }
  }
  return null
}

/** What a user asks for may be refused, or never be answered: then it may have been done or not. */
async function whileLed(chaos: Chaos, deed: () => Promise<void>): Promise<void> {
  if (chaos.cluster.coordinator) await orFails(chaos, deed)
}

async function orFails(chaos: Chaos, deed: () => Promise<void>): Promise<void> {
  try {
    await deed()
  } catch (error) {
    const { store } = chaos.cluster
    // A slow commit may find that another one was faster.
    const isOurs =
      store.away ||
      store.full ||
      store.conflictRate > 0 ||
      store.slowMs > 0 ||
      error instanceof CoordinatorDied ||
      chaos.cluster.hasOldLeader
    if (error instanceof Error && error.name === 'InvariantViolation') throw error
    if (!isOurs) throw error
    chaos.cluster.trace.line(`refused: ${error instanceof Error ? error.message : String(error)}`)
  }
}

function anyHost(chaos: Chaos): string {
  return pick(chaos, chaos.names)
}

function shuffled<T>(chaos: Chaos, from: readonly T[]): T[] {
  return from
    .map((each) => [chaos.random.next(), each] as const)
    .sort((a, b) => a[0] - b[0])
    .map(([, each]) => each)
}

export function upTo(chaos: Pick<Chaos, 'random'>, limit: number): number {
  return Math.floor(chaos.random.next() * limit)
}

export function pick<T>(chaos: Pick<Chaos, 'random'>, from: readonly T[]): T {
  return from[upTo(chaos, from.length)] as T
}
