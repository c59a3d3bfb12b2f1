/**
 * What a cluster is for, told in short scripted scenarios. Each is run as it is, and again with a crash after every single effect
 * (crash-points.ts). A story asks through its stage, which brings back whatever died and asks again for what got no answer.
 */
import { drainNode } from '../../coordinator/fleet/node-actions.ts'
import { ConflictError, NotFoundError } from '../../shared/errors.ts'
import type { Pool } from '../../shared/model/node.ts'
import { CLOCK_RATE_BOUND } from '../../coordinator/services/service-plan.ts'
import { aPool } from '../builders/records.ts'
import { anApp } from './apps.ts'
import { type ClusterOptions, CoordinatorDied, type SimCluster } from './cluster.ts'
import { killWatchdogOn } from './host-fence.ts'
import { containersOf } from './invariants.ts'

export interface Story {
  readonly name: string
  readonly options: Omit<ClusterOptions, 'seed'>
  /** What is there when it begins; nothing crashes yet. */
  before(stage: Stage): Promise<void>
  tell(stage: Stage): Promise<void>
  /** false: its deeds leave nothing that could be told of a further crash (somebody is dead on purpose). Default true. */
  readonly crashes?: false
}

export interface Stage {
  readonly cluster: SimCluster
  /** An agent is to be killed in this run: what its containers serve cannot be told while it is dead. */
  readonly agentsDie: boolean
  /** Asks until there is an answer. */
  insist(deed: () => Promise<unknown>): Promise<void>
  advance(ms: number): Promise<void>
  until(condition: () => boolean, what: string, limitMs?: number): Promise<void>
  settle(limitMs?: number): Promise<void>
  /** I4 from now on, where it can be told. */
  keepServing(service: string, atLeast: number | null): void
}

/** How long a dead process stays dead, as its service manager has it. */
const REVIVE_MS = 700

export function stageOf(cluster: SimCluster, agentsDie: boolean): Stage {
  const revive = async () => {
    for (const host of cluster.hosts.values()) if (!host.life?.alive && !host.left) cluster.startAgent(host.name)
    if (cluster.coordinator) return
    await cluster.advance(REVIVE_MS)
    if (!cluster.coordinator) await cluster.startCoordinator()
  }
  const until = async (condition: () => boolean, what: () => string, limitMs: number) => {
    const endMs = cluster.clock.monotonicMs() + limitMs
    for (;;) {
      await revive()
      if (condition()) return
      if (cluster.clock.monotonicMs() >= endMs) throw new Error(`I10: after ${limitMs} ms still not: ${what()}`)
      await cluster.advance(200)
    }
  }
  return {
    cluster,
    agentsDie,
    async insist(deed) {
      for (;;) {
        await revive()
        try {
          await deed()
          return
        } catch (error) {
          // The first try did it, and its answer was lost.
          if (error instanceof NotFoundError || error instanceof ConflictError) return
          if (!(error instanceof CoordinatorDied)) throw error
        }
      }
    },
    async advance(ms) {
      const endMs = cluster.clock.monotonicMs() + ms
      await until(
        () => cluster.clock.monotonicMs() >= endMs,
        () => 'time',
        ms + 60_000,
      )
    },
    until: (condition, what, limitMs = 300_000) => until(condition, () => what, limitMs),
    settle: (limitMs = 300_000) =>
      until(
        () => cluster.invariants.unsettled() === null,
        () => `settled (${cluster.invariants.unsettled()})`,
        limitMs,
      ),
    keepServing(service, atLeast) {
      if (!agentsDie) cluster.invariants.keepServing(service, atLeast)
    },
  }
}

const POOL: Pool = aPool({
  name: 'spot',
  max: 4,
  capacity: { cpuMillis: 1_000, memoryBytes: 2 ** 32, diskBytes: 2 ** 36, slots: 20 },
})
/** One small host, and machines to buy. */
const ELASTIC: Omit<ClusterOptions, 'seed'> = {
  hosts: 1,
  capacity: { cpuMillis: 600, memoryBytes: 2 ** 30, diskBytes: 2 ** 36, slots: 20 },
  pools: [POOL],
  fleet: { minNodeAgeMs: 30_000, downIntervalMs: 20_000, reapIntervalMs: 20_000, takeoverMs: 60_000, orphanGraceMs: 40_000 },
}

const shop = (version: number, replicas = 3) => anApp({ name: 'shop', image: `shop:${version}`, replicas })

/** Different machines that were ever asked for. */
const bought = ({ provider }: SimCluster) => new Set(provider.createCalls).size

async function deployed(stage: Stage, replicas = 3): Promise<void> {
  await stage.insist(() => stage.cluster.deploy(shop(1, replicas)))
  await stage.settle()
}

/** Bought machines run half of four instances. */
async function grown(stage: Stage): Promise<void> {
  await deployed(stage, 5)
  expectThat(bought(stage.cluster) >= 1, 'a machine was bought')
}

function drained(stage: Stage, hostName: string): Promise<void> {
  const { cluster } = stage
  return stage.insist(() =>
    cluster.drive(
      drainNode({ state: cluster.lead().state, clock: cluster.clock }, cluster.host(hostName).nodeId ?? '', {
        by: 'operator:sim',
        reason: 'story',
        deleteMachine: false,
      }),
    ),
  )
}

const instancesOn = ({ cluster }: Stage, hostName: string) =>
  [...cluster.running().values()].filter((host) => host === hostName).length

export const STORIES: readonly Story[] = [
  {
    name: 'deploy',
    options: { hosts: 3 },
    before: async () => {},
    async tell(stage) {
      await deployed(stage)
      expectThat(stage.cluster.running().size === 3, 'three instances run')
    },
  },
  {
    name: 'scale up with a purchase',
    options: ELASTIC,
    before: (stage) => deployed(stage, 2),
    async tell(stage) {
      stage.keepServing('shop/web', 2)
      await stage.insist(() => stage.cluster.scale('shop', 'web', 5))
      await stage.settle()
      // Three more of 250 fit one machine of 1000: one burst buys once.
      expectThat(bought(stage.cluster) === 1, `one machine was bought, not ${bought(stage.cluster)}`)
    },
  },
  {
    name: 'scale down with the deletion of a machine',
    options: ELASTIC,
    before: grown,
    async tell(stage) {
      stage.keepServing('shop/web', 2)
      await stage.insist(() => stage.cluster.scale('shop', 'web', 2))
      await stage.until(() => stage.cluster.provider.live().length === 0, 'no machine is paid for', 900_000)
      await stage.settle()
      expectThat(bought(stage.cluster) === 1, 'none was bought in between')
    },
  },
  {
    name: 'rolling update',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      stage.keepServing('shop/web', 3)
      await stage.insist(() => stage.cluster.deploy(shop(2)))
      await stage.settle()
      expectThat(imagesOf(stage) === 'shop:2', `every instance runs shop:2, not ${imagesOf(stage)}`)
    },
  },
  {
    name: 'bad update, rolled back',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      const { cluster } = stage
      stage.keepServing('shop/web', 3)
      cluster.badImages.add('shop:2')
      await stage.insist(() => cluster.deploy(shop(2)))
      await stage.until(
        () => imagesOf(stage) === 'shop:1' && cluster.lead().state.snapshot.get('app', 'shop')?.revision !== 2,
        'it is rolled back',
      )
      await stage.settle()
      expectThat(imagesOf(stage) === 'shop:1', `every instance runs shop:1, not ${imagesOf(stage)}`)
    },
  },
  {
    name: 'drain of two nodes at once',
    options: { hosts: 4 },
    before: (stage) => deployed(stage, 4),
    async tell(stage) {
      stage.keepServing('shop/web', 4)
      await drained(stage, 'h1')
      await drained(stage, 'h2')
      await stage.until(() => instancesOn(stage, 'h1') + instancesOn(stage, 'h2') === 0, 'the nodes are empty')
      await stage.settle()
    },
  },
  {
    name: 'node lost and back',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      stage.cluster.partition('h2')
      await stage.until(() => stage.cluster.running().size > 3, 'its instance is replaced elsewhere', 500_000)
      stage.cluster.heal('h2')
      await stage.settle()
      expectThat(stage.cluster.running().size === 3, 'one copy is left of each')
    },
  },
  {
    name: 'key revoked',
    options: { hosts: 2 },
    async before(stage) {
      await deployed(stage, 2)
      await stage.insist(() => stage.cluster.createKey('ci'))
      await stage.until(() => [...stage.cluster.hosts.values()].every((host) => hasKey(stage, host.name)), 'agents have the key')
    },
    async tell(stage) {
      const { cluster } = stage
      const [key] = cluster.lead().keys.list()
      await stage.insist(() => cluster.revokeKey(key?.id ?? ''))
      cluster.invariants.revoked(key?.id ?? '')
      await stage.until(() => [...cluster.hosts.values()].every((host) => !hasKey(stage, host.name)), 'no agent has the key')
      await stage.settle()
    },
  },
  {
    name: 'app removed, and deployed again',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      await stage.insist(() => stage.cluster.remove('shop'))
      await stage.until(() => stage.cluster.running().size === 0, 'nothing runs')
      await stage.settle()
      await deployed(stage)
    },
  },
  {
    name: 'another coordinator takes over',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      const { cluster } = stage
      const before = containersOf(cluster)
      await stage.insist(() => cluster.takeOver())
      // Some agents change sides and come back; the old leader goes on talking to them, and orders what it cannot store.
      cluster.reachOnly('h1', 'new')
      cluster.reachOnly('h2', 'new')
      await stage.advance(5_000)
      cluster.reachOnly('h1', 'old')
      await stage.advance(6_000)
      cluster.endOldLeader()
      await stage.settle()
      expectThat(containersOf(cluster) === before, 'no container was touched')
    },
  },
]

/** Further stories, whose point is a number or a fault of their own rather than a crash. */
export const FAULT_STORIES: readonly Story[] = [
  {
    name: 'coordinator away for ten minutes',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      const { cluster } = stage
      const before = containersOf(cluster)
      cluster.invariants.freezeContainers(true)
      cluster.killCoordinator()
      await cluster.advance(600_000)
      await stage.settle()
      await stage.advance(60_000)
      expectThat(containersOf(cluster) === before, 'no container was touched')
    },
  },
  {
    name: 'agents restarted one after the other',
    options: { hosts: 3 },
    before: deployed,
    async tell(stage) {
      const { cluster } = stage
      cluster.invariants.freezeContainers(true)
      for (const name of cluster.hosts.keys()) {
        cluster.killAgent(name)
        await cluster.advance(3_000)
        cluster.startAgent(name)
        await stage.settle()
      }
      await stage.advance(10_000)
    },
  },
  {
    name: 'most nodes silent at once',
    options: { hosts: 5 },
    before: (stage) => deployed(stage, 5),
    async tell(stage) {
      const { cluster } = stage
      for (const name of ['h1', 'h2', 'h3', 'h4']) cluster.partition(name)
      await stage.advance(120_000)
      expectThat(cluster.running().size === 5, `nothing is replaced while the fault may be ours, ${cluster.running().size} run`)
      for (const name of ['h1', 'h2', 'h3', 'h4']) cluster.heal(name)
      await stage.settle()
    },
  },
  {
    name: 'strict singleton cut off',
    options: { hosts: 3 },
    async before(stage) {
      await stage.insist(() => stage.cluster.deploy(anApp({ name: 'lock', image: 'lock:1', replicas: 1, strictMs: 60_000 })))
      await stage.settle()
    },
    async tell(stage) {
      const { cluster } = stage
      const [where = 'h1'] = [...cluster.running().values()]
      cluster.partition(where)
      await stage.until(() => [...cluster.running().values()].some((host) => host !== where), 'it runs elsewhere', 900_000)
      cluster.heal(where)
      await stage.settle()
    },
  },
  {
    name: 'strict singleton whose rules change in a cut',
    options: { hosts: 3 },
    async before(stage) {
      await stage.insist(() => stage.cluster.deploy(anApp({ name: 'lock', image: 'lock:1', replicas: 1, strictMs: 180_000 })))
      await stage.settle()
    },
    async tell(stage) {
      const { cluster } = stage
      const [where = 'h1'] = [...cluster.running().values()]
      cluster.partition(where)
      await stage.advance(60_000)
      // Shorter, none at all, and shorter again: the node hears of none of them.
      const rules = [{ strictMs: 15_000 }, {}, { strictMs: 20_000 }]
      for (const [index, rule] of rules.entries()) {
        await stage.insist(() =>
          cluster.deploy(
            anApp({ name: 'lock', image: `lock:${index + 2}`, replicas: 1, update: { order: 'start-first' }, ...rule }),
          ),
        )
        await stage.advance(20_000)
      }
      await stage.until(() => [...cluster.running().values()].some((host) => host !== where), 'it runs elsewhere', 600_000)
      cluster.heal(where)
      await stage.settle()
      expectThat(imagesOf(stage) === 'lock:4', `lock:4 runs, not ${imagesOf(stage)}`)
    },
  },
  {
    name: 'strict singleton whose agent dies',
    crashes: false,
    options: { hosts: 3 },
    async before(stage) {
      await stage.insist(() => stage.cluster.deploy(anApp({ name: 'lock', image: 'lock:1', replicas: 1, strictMs: 60_000 })))
      await stage.settle()
    },
    async tell(stage) {
      const { cluster } = stage
      const before = containersOf(cluster)
      await stage.advance(150_000)
      expectThat(containersOf(cluster) === before, 'it runs on while there is contact')
      const [where = 'h1'] = [...cluster.running().values()]
      // The agent sees to it that there is always one.
      killWatchdogOn(cluster.host(where), cluster.trace)
      await stage.advance(5_000)
      cluster.killAgent(where)
      // Not by the stage, which would start it again.
      await cluster.advance(70_000)
      expectThat(cluster.running().size === 0, 'it ends on its node while no agent lives there')
      await cluster.until(() => cluster.running().size > 0, 'it runs elsewhere', 300_000)
      cluster.startAgent(where)
      await stage.settle()
    },
  },
  {
    name: 'strict singleton cut off while its engine hangs',
    options: { hosts: 3 },
    async before(stage) {
      await stage.insist(() => stage.cluster.deploy(anApp({ name: 'lock', image: 'lock:1', replicas: 1, strictMs: 60_000 })))
      await stage.settle()
    },
    async tell(stage) {
      const { cluster } = stage
      const [where = 'h1'] = [...cluster.running().values()]
      const { engine } = cluster.host(where)
      engine.hangMs = 20_000
      cluster.partition(where)
      await stage.until(() => [...cluster.running().values()].some((host) => host !== where), 'it runs elsewhere', 900_000)
      engine.hangMs = 0
      cluster.heal(where)
      await stage.settle()
    },
  },
  {
    name: 'strict singleton, the clocks as far apart as they may be',
    options: { hosts: 3, coordinatorRate: CLOCK_RATE_BOUND },
    async before(stage) {
      await stage.insist(() => stage.cluster.deploy(anApp({ name: 'lock', image: 'lock:1', replicas: 1, strictMs: 600_000 })))
      await stage.settle()
    },
    async tell(stage) {
      const { cluster } = stage
      const [where = 'h1'] = [...cluster.running().values()]
      cluster.partition(where)
      await stage.until(() => [...cluster.running().values()].some((host) => host !== where), 'it runs elsewhere', 1_200_000)
      cluster.heal(where)
      await stage.settle()
    },
  },
  {
    name: 'loads missing',
    options: { hosts: 3 },
    async before(stage) {
      stage.cluster.demand.set('shop/web', 400)
      await stage.insist(() => stage.cluster.deploy(anApp({ name: 'shop', image: 'shop:1', scale: [1, 9] })))
      await stage.until(() => stage.cluster.running().size >= 5, 'load has brought more instances')
      await stage.advance(40_000)
      await stage.settle()
    },
    async tell(stage) {
      const { cluster } = stage
      const desired = () => cluster.lead().state.snapshot.get('service', 'shop/web')?.desired ?? 0
      const before = desired()
      cluster.partition('h2')
      for (let second = 0; second < 40; second += 1) {
        await stage.advance(1_000)
        expectThat(desired() >= before, `missing reports scale nothing down (${before} became ${desired()})`)
      }
      cluster.heal('h2')
      cluster.demand.set('shop/web', 40)
      await stage.until(() => desired() === 1, 'low load scales down once every report is there')
      await stage.settle()
    },
  },
  {
    name: 'cloud that forgets and loses answers',
    options: { ...ELASTIC, fleet: { ...ELASTIC.fleet, missingMs: 90_000 } },
    before: (stage) => deployed(stage, 2),
    async tell(stage) {
      const { cluster } = stage
      const { levers } = cluster.provider
      Object.assign(levers, { loseCreateReplies: 1, listLagMs: 60_000, bootDelayMs: 50_000, failCalls: 1 })
      await stage.insist(() => cluster.scale('shop', 'web', 9))
      await stage.settle(900_000)
      expectThat(bought(cluster) === 2, `two machines were bought, not ${bought(cluster)}`)
      levers.listMode = 'empty'
      await stage.advance(150_000)
      expectThat(cluster.provider.live().length === 2, 'an empty list deletes nothing')
      Object.assign(levers, { listMode: 'normal', failCalls: 2, deleteDelayMs: 40_000 })
      await stage.insist(() => cluster.scale('shop', 'web', 2))
      await stage.until(() => cluster.provider.live().length === 0, 'no machine is paid for', 900_000)
      await stage.settle()
    },
  },
  {
    name: 'machine that joins too late',
    options: { ...ELASTIC, fleet: { ...ELASTIC.fleet, joinDeadlineMs: 60_000, capacityCoolDownMs: 30_000 } },
    before: (stage) => deployed(stage, 2),
    async tell(stage) {
      const { cluster } = stage
      Object.assign(cluster.provider.levers, { joinLagMs: 150_000, deleteDelayMs: 40_000 })
      await stage.insist(() => cluster.scale('shop', 'web', 4))
      await stage.until(() => bought(cluster) >= 2, 'another one is bought instead', 600_000)
      cluster.provider.levers.joinLagMs = 0
      await stage.settle(900_000)
    },
  },
  {
    name: 'cloud that refuses for a while',
    options: ELASTIC,
    before: (stage) => deployed(stage, 2),
    async tell(stage) {
      const { cluster } = stage
      cluster.provider.levers.failCalls = 40
      await stage.insist(() => cluster.scale('shop', 'web', 4))
      await stage.advance(30_000)
      cluster.provider.levers.failCalls = 0
      await stage.settle(900_000)
    },
  },
  {
    name: 'budget too small',
    options: { ...ELASTIC, fleet: { ...ELASTIC.fleet, budgetUsdPerMonth: 0.001 } },
    before: (stage) => deployed(stage, 2),
    async tell(stage) {
      const { cluster } = stage
      await stage.insist(() => cluster.scale('shop', 'web', 5))
      await stage.advance(120_000)
      expectThat(bought(cluster) === 0, 'nothing is bought beyond the budget')
      await stage.insist(() => cluster.scale('shop', 'web', 2))
      await stage.settle()
    },
  },
  {
    name: 'somebody else’s machines',
    options: ELASTIC,
    before: (stage) => deployed(stage, 2),
    async tell(stage) {
      const { cluster } = stage
      const clusterId = cluster.lead().cluster.id
      cluster.provider.plant({ name: 'another-m1', tags: { 'rubato-cluster': 'another' } })
      cluster.provider.plant({ name: 'by-hand', tags: {} })
      cluster.provider.plant({ name: `${clusterId}-m999`, tags: { 'rubato-cluster': clusterId } })
      await stage.until(
        () => cluster.provider.live().length === 2,
        'the one with our tag that nobody ordered is deleted',
        900_000,
      )
      await stage.settle()
    },
  },
]

function imagesOf({ cluster }: Stage): string {
  const images = new Set<string>()
  for (const host of cluster.hosts.values())
    for (const container of host.engine.containers.values())
      if (container.state === 'running') images.add(container.request.spec.image)
  return [...images].sort().join(' ')
}

function hasKey({ cluster }: Stage, hostName: string): boolean {
  const [key] = cluster.lead().keys.list()
  return key !== undefined && cluster.host(hostName).agent?.view.keys.key(key.id) !== undefined
}

function expectThat(holds: boolean, what: string): void {
  if (!holds) throw new Error(`expected: ${what}`)
}
