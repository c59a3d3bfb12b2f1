/**
 * One seed, one life of a cluster: random requests of users and random faults for a few minutes, then quiet, then it must become
 * what is wanted (I10) and stay so. Every choice comes from the seed, so a failure happens again.
 */
import { drainNode, uncordonNode } from '../../coordinator/fleet/node-actions.ts'
import { NotFoundError, RetryableError, UnavailableError } from '../../shared/errors.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import type { Pool } from '../../shared/model/node.ts'
import type { Random } from '../../shared/random.ts'
import { aPool } from '../builders/records.ts'
import { aContainerSpec, anAppSpec, anUpdate, aRestartPolicy, aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'
import { type SimCluster, simCluster } from './cluster.ts'
import { containersOf } from './invariants.ts'

export interface SeedResult {
  readonly seed: number
  readonly hash: string
  readonly steps: number
  readonly virtualMs: number
}

/** A seed that broke a promise; the message ends with how to see it again. */
export class SeedFailure extends Error {
  readonly tail: string
  constructor(seed: number, cause: unknown, tail: string) {
    super(
      `${cause instanceof Error ? cause.message : String(cause)}\nreplay: SEED=${seed} RUBATO_TEST=test/simulation/random-faults.test.ts npx vitest run --config test/vitest.config.ts`,
      { cause },
    )
    this.name = 'SeedFailure'
    this.tail = tail
  }
}

const POOL: Pool = aPool({
  name: 'spot',
  max: 3,
  capacity: { cpuMillis: 2_000, memoryBytes: 2 ** 32, diskBytes: 2 ** 36, slots: 20 },
})
const CHAOS_MS = 150_000
/** Orphans and machines that never join are given up within I1's 15 minutes; without machines two minutes must do. */
const SETTLE_MS = { hosts: 120_000, machines: 900_000 }
const STILL_MS = 60_000

interface Chaos {
  readonly cluster: SimCluster
  readonly random: Random
  readonly names: readonly string[]
  readonly hasMachines: boolean
  /** Revision counters, so that each deploy differs. */
  version: number
  readonly apps: Set<string>
}

export async function runSeed(seed: number): Promise<SeedResult> {
  const hasMachines = seed % 3 === 0
  const cluster = await simCluster({
    seed,
    hosts: 2 + (seed % 3),
    ...(hasMachines
      ? {
          pools: [POOL],
          capacity: { cpuMillis: 600, memoryBytes: 2 ** 30, diskBytes: 2 ** 36, slots: 20 },
          fleet: { minNodeAgeMs: 60_000, joinDeadlineMs: 120_000, drainDeadlineMs: 60_000 },
        }
      : {}),
  })
  const chaos: Chaos = {
    cluster,
    random: cluster.random,
    names: [...cluster.hosts.keys()],
    hasMachines,
    version: 0,
    apps: new Set(),
  }
  try {
    await deploy(chaos, 'shop')
    const endMs = cluster.clock.monotonicMs() + CHAOS_MS
    while (cluster.clock.monotonicMs() < endMs) {
      await something(chaos)
      await cluster.advance(upTo(chaos, 6_000))
    }
    await quiet(chaos)
    await cluster.settle(hasMachines ? SETTLE_MS.machines : SETTLE_MS.hosts)
    if (!hasMachines) await staysStill(cluster)
    const broken = cluster.trace.errors.filter((line) => !line.includes('unavailable'))
    if (broken.length > 0) throw new Error(`an error was logged: ${broken[0]}`)
    return { seed, hash: cluster.trace.hash(), steps: cluster.invariants.checks, virtualMs: cluster.clock.monotonicMs() }
  } catch (error) {
    for (const machine of cluster.coordinator?.state.snapshot.all('machine').values() ?? [])
      cluster.trace.line(`machine ${JSON.stringify(machine)}`)
    cluster.trace.line(`now ${cluster.clock.now()}, fleet: ${JSON.stringify(cluster.coordinator?.fleet.view())}`)
    throw new SeedFailure(seed, error, cluster.trace.tail(Number(process.env.TAIL ?? 200)))
  } finally {
    await cluster.stop()
  }
}

type Deed = (chaos: Chaos) => Promise<void> | void

/** What may happen, with its weight. A deed that is not possible at this moment does nothing. */
const DEEDS: readonly (readonly [number, Deed])[] = [
  [3, (chaos) => whileLed(chaos, () => deploy(chaos, pick(chaos, ['shop', 'blog'])))],
  [1, (chaos) => whileLed(chaos, () => remove(chaos, 'blog'))],
  [2, (chaos) => whileLed(chaos, () => scale(chaos))],
  [3, (chaos) => void chaos.cluster.demand.set('shop/web', upTo(chaos, 600))],
  [3, killOrStartCoordinator],
  [4, killOrStartAgent],
  [4, cutOrHeal],
  [3, engineDownOrUp],
  [4, crashContainer],
  [2, failPull],
  [2, ({ cluster, random }) => cluster.clock.jumpWall(Math.round((random.next() - 0.5) * 7_200_000))],
  [2, (chaos) => void chaos.cluster.network.drop(anyHost(chaos))],
  [2, (chaos) => chaos.cluster.network.halfOpen(anyHost(chaos), pick(chaos, ['up', 'down'] as const))],
  [2, (chaos) => chaos.cluster.network.duplicateNext(anyHost(chaos), pick(chaos, ['up', 'down'] as const))],
  [1, (chaos) => chaos.cluster.network.loseNext(anyHost(chaos), 'down')],
  [1, (chaos) => chaos.cluster.host(anyHost(chaos)).engine.restart()],
  [2, (chaos) => whileLed(chaos, () => drainOrReturn(chaos))],
  [3, troubleInTheCloud],
]

async function something(chaos: Chaos): Promise<void> {
  const total = DEEDS.reduce((sum, [weight]) => sum + weight, 0)
  let at = chaos.random.next() * total
  for (const [weight, deed] of DEEDS) {
    at -= weight
    if (at < 0) return deed(chaos)
  }
}

/** Every fault ends; what was asked for stays asked for. */
async function quiet(chaos: Chaos): Promise<void> {
  const { cluster } = chaos
  cluster.trace.line('—— quiet ——')
  const { levers } = cluster.provider
  Object.assign(levers, { loseCreateReplies: 0, hangCreates: 0, failCalls: 0, listMode: 'normal', neverJoins: false })
  for (const host of [...cluster.hosts.values()]) {
    cluster.heal(host.name)
    host.engine.down = false
    host.engine.failNoMore()
    if (!host.life?.alive && !host.left && host.nodeId !== null) cluster.startAgent(host.name)
  }
  if (!cluster.coordinator) await cluster.startCoordinator()
  await returnNodes(chaos)
  // What is wanted in the end is something that can run, and a count that load does not change.
  for (const name of [...chaos.apps]) await deploy(chaos, name, true)
  await cluster.scale('shop', 'web', 3)
}

async function staysStill(cluster: SimCluster): Promise<void> {
  const before = containersOf(cluster)
  const events = cluster.disk.events.length
  await cluster.advance(STILL_MS)
  const after = containersOf(cluster)
  if (after !== before) throw new Error(`I10: it did not stay still: ${before} became ${after}`)
  // That a hold ends is told late; it changes nothing that runs.
  const news = cluster.disk.events.slice(events).filter((event) => event.type !== 'cluster.thawed')
  if (news.length > 0)
    throw new Error(`I10: events after it had settled: ${news.map((event) => `${event.type} ${event.message}`)}`)
}

async function deploy(chaos: Chaos, name: string, isGood = false): Promise<void> {
  chaos.version += 1
  const image = `${name}:${chaos.version}`
  // Now and then a revision that never becomes healthy: it must be rolled back.
  if (!isGood && chaos.version > 1 && chaos.random.next() < 0.25) chaos.cluster.badImages.add(image)
  await chaos.cluster.deploy(anApp(name, image, chaos, isGood))
  chaos.apps.add(name)
}

async function remove(chaos: Chaos, name: string): Promise<void> {
  if (!chaos.apps.delete(name)) return
  await chaos.cluster.remove(name)
}

async function scale(chaos: Chaos): Promise<void> {
  if (chaos.apps.has('blog')) await chaos.cluster.scale('blog', 'web', 1 + upTo(chaos, 5))
}

function anApp(name: string, image: string, chaos: Chaos, isGood: boolean): AppSpec {
  const health = {
    probe: { kind: 'http' as const, port: 80, path: '/' },
    intervalMs: 3_000,
    timeoutMs: 1_000,
    retries: 2,
    startPeriodMs: 0,
    startIntervalMs: 1_000,
  }
  return anAppSpec({
    name,
    services: [
      aServiceSpec({
        replicas: 2,
        scale: name === 'shop' ? aScale({ min: 1, max: 8, windowMs: 10_000, downWindowMs: 15_000, coolDownMs: 1_000 }) : null,
        update: anUpdate({
          parallelism: 1 + upTo(chaos, 2),
          order: pick(chaos, ['start-first', 'stop-first'] as const),
          monitorMs: 2_000,
          progressDeadlineMs: isGood ? 900_000 : 20_000,
        }),
        unit: aUnitSpec({
          drainMs: 500,
          stopGraceMs: 1_000,
          reservations: { cpuMillis: 250, memoryBytes: 2 ** 26 },
          containers: [aContainerSpec({ image, health, restart: aRestartPolicy({ delayMs: 500 }) })],
        }),
      }),
    ],
  })
}

async function killOrStartCoordinator({ cluster }: Chaos): Promise<void> {
  if (cluster.coordinator) cluster.killCoordinator()
  else await cluster.startCoordinator()
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

async function drainOrReturn(chaos: Chaos): Promise<void> {
  if (chaos.random.next() < 0.5) return returnNodes(chaos)
  const nodes = [...chaos.cluster.lead().state.snapshot.all('node').values()]
  const node = nodes[upTo(chaos, nodes.length)]
  if (!node) return
  const { clock } = chaos.cluster
  await drive(
    chaos,
    drainNode({ state: chaos.cluster.lead().state, clock }, node.id, {
      by: 'operator:sim',
      reason: 'chaos',
      deadlineMs: 60_000,
      deleteMachine: false,
    }),
  )
}

async function returnNodes(chaos: Chaos): Promise<void> {
  const { state } = chaos.cluster.lead()
  for (const node of [...state.snapshot.all('node').values()])
    if (node.drain?.deleteMachine !== true && node.availability !== 'active')
      await drive(
        chaos,
        uncordonNode({ state, clock: chaos.cluster.clock }, node.id, 'operator:sim').catch(() => undefined),
      )
}

function troubleInTheCloud(chaos: Chaos): void {
  if (!chaos.hasMachines) return
  const { provider } = chaos.cluster
  const { levers } = provider
  pick<() => void>(chaos, [
    () => (levers.loseCreateReplies += 1),
    () => (levers.hangCreates += 1),
    () => (levers.failCalls += 1 + upTo(chaos, 3)),
    () => (levers.listMode = pick(chaos, ['normal', 'empty', 'partial', 'fails'] as const)),
    () => (levers.neverJoins = !levers.neverJoins),
    () => {
      const victim = provider.live()[0]
      if (victim) provider.destroy(victim.name)
    },
  ])()
}

async function drive<T>(chaos: Chaos, work: Promise<T>): Promise<T> {
  let over = false
  const done = work.finally(() => {
    over = true
  })
  done.catch(() => undefined)
  await chaos.cluster.until(() => over, 'the coordinator has answered', 60_000)
  return done
}

async function whileLed(chaos: Chaos, deed: () => Promise<void>): Promise<void> {
  if (chaos.cluster.coordinator) await deed()
}

/** One of the hosts that were there from the beginning. */
function anyHost(chaos: Chaos): string {
  return pick(chaos, chaos.names)
}

function upTo(chaos: Chaos, limit: number): number {
  return Math.floor(chaos.random.next() * limit)
}

function pick<T>(chaos: Chaos, from: readonly T[]): T {
  return from[upTo(chaos, from.length)] as T
}
