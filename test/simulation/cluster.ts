/**
 * A whole cluster in one process under virtual time, from one seed: the real coordinator and real agents over a model store,
 * network, engines and cloud. Nothing here waits for real, reads a disk or asks the machine for randomness, so the same seed and
 * the same script give the same trace. Levers of the models are the faults; `kill…` is SIGKILL (see life.ts).
 */
import type { JoinHttp } from '../../agent/join-http.ts'
import type { Coordinator } from '../../coordinator/coordinator.ts'
import type { FleetConfig } from '../../coordinator/fleet/config.ts'
import type { HubSettings } from '../../coordinator/hub/hub.ts'
import type { Scheduler } from '../../coordinator/schedulers/scheduler.ts'
import type { Prepared } from '../../coordinator/services/deploy.ts'
import { deployApp, removeApp, scaleService } from '../../coordinator/services/deploy.ts'
import type { State } from '../../coordinator/state/state.ts'
import { settingsOfUserData } from '../../installer/cloud-init.ts'
import { sleep } from '../../shared/clock.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { serviceIdOf } from '../../shared/model/identity.ts'
import type { Pool } from '../../shared/model/node.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import type { JoinRequest } from '../../shared/protocol/join.ts'
import { type Random, seededRandom } from '../../shared/random.ts'
import { type FakeProvider, fakeProvider } from '../fakes/fake-provider.ts'
import { emptyDisk, type MemoryStoreDisk } from '../fakes/memory-store.ts'
import { type ModelNetwork, modelNetwork } from '../fakes/model-network.ts'
import { type VirtualClock, virtualClock } from '../fakes/virtual-clock.ts'
import { askToJoin, COORDINATOR_URLS, type CoordinatorProcess, startCoordinatorProcess } from './coordinator-process.ts'
import type { EffectListener } from './effects.ts'
import { bootAgent, type Host, type HostParts, killAgentOn, newHost } from './host-process.ts'
import { createInvariants, type Invariants } from './invariants.ts'
import type { Life } from './life.ts'
import type { StoreLevers } from './model-store.ts'
import { machineClock } from './process-clock.ts'
import { createTrace, type Trace } from './trace.ts'

export type { Host } from './host-process.ts'

const CLOUD_START_MS = Date.UTC(2026, 0, 5)
const DEFAULT_CAPACITY: Capacity = { cpuMillis: 4_000, memoryBytes: 8 * 2 ** 30, diskBytes: 2 ** 37, slots: 100 }

export interface ClusterOptions {
  readonly seed: number
  /** Hosts that are there from the beginning: `h1`, `h2` … */
  readonly hosts: number
  readonly capacity?: Capacity
  readonly pools?: readonly Pool[]
  readonly fleet?: Partial<FleetConfig>
  readonly hub?: Partial<HubSettings>
  /** Custom schedulers of the next coordinator. */
  readonly schedulers?: Scheduler[]
  /** Default true. */
  readonly pullAhead?: boolean
  /** Rate of the clock of the next machine or coordinator; default always 1. */
  readonly rateOf?: () => number
  /** Rate of the clocks of coordinators, if another one. */
  readonly coordinatorRate?: number
}

export interface SimCluster {
  readonly clock: VirtualClock
  readonly network: ModelNetwork
  readonly provider: FakeProvider
  readonly disk: MemoryStoreDisk
  readonly store: StoreLevers
  readonly trace: Trace
  readonly invariants: Invariants
  readonly hosts: ReadonlyMap<string, Host>
  /** For the scenario's own choices. */
  readonly random: Random
  /** The newest one; null while it is dead. */
  readonly coordinator: Coordinator | null
  /** Demand of a service in percent of one instance; shared by its running containers. Absent: they report no load. */
  readonly demand: Map<string, number>
  /** Images whose programs never answer a probe. */
  readonly badImages: Set<string>
  /** Called around every effect of every process; may kill. */
  onEffect: EffectListener | null
  /** The running coordinator; throws while there is none. */
  lead(): Coordinator
  host(name: string): Host
  startCoordinator(): Promise<void>
  killCoordinator(): void
  /** Starts another coordinator on the same store beside the present one, which lives on until `endOldLeader`. */
  takeOver(): Promise<void>
  endOldLeader(): void
  readonly hasOldLeader: boolean
  /** During a take-over the host reaches only one of the two leaders; null: both. */
  reachOnly(name: string, leader: 'old' | 'new' | null): void
  startAgent(name: string): void
  killAgent(name: string): void
  partition(name: string): void
  heal(name: string): void
  jumpWall(who: string, ms: number): void
  deploy(spec: AppSpec): Promise<void>
  remove(app: string): Promise<void>
  scale(app: string, service: string, count: number | null): Promise<void>
  /** Makes a key that every service accepts; its id. */
  createKey(name: string): Promise<string>
  revokeKey(id: string): Promise<void>
  /** Ids of containers that run, over all hosts: instance → host. */
  running(): Map<string, string>
  /** Drives the world until the work is done. */
  drive<T>(work: Promise<T>): Promise<T>
  advance(ms: number): Promise<void>
  until(condition: () => boolean, what: string, limitMs?: number): Promise<void>
  /** Advances until nothing is left to do, throws with the reason why not after `limitMs` (I10). */
  settle(limitMs?: number): Promise<void>
  stop(): Promise<void>
}

export async function simCluster(options: ClusterOptions): Promise<SimCluster> {
  const random = seededRandom(options.seed)
  let lives = 0
  const nextLife = () => {
    lives += 1
    return lives
  }
  const nextRandom = () => seededRandom(Math.imul(options.seed + 1, 7919) + nextLife())
  const rateOf = options.rateOf ?? (() => 1)
  let step = () => {}
  const clock = virtualClock(undefined, { afterStep: () => step() })
  const trace = createTrace(() => clock.monotonicMs())
  const network = modelNetwork({ clock, random: nextRandom() })
  network.onDelivered(({ from, to, text }) => trace.silent(`${from}>${to} ${text}`))
  const disk = emptyDisk()
  const store: StoreLevers = { away: false, full: false, conflictRate: 0, slowMs: 0 }
  const hosts = new Map<string, Host>()
  const demand = new Map<string, number>()
  const badImages = new Set<string>()
  const cut = new Set<string>()
  const tell: EffectListener = (effect) => {
    cluster.invariants.effect(effect)
    cluster.onEffect?.(effect)
  }
  const running = (): Map<string, string> => {
    const found = new Map<string, string>()
    for (const host of hosts.values())
      for (const container of host.engine.containers.values())
        if (container.state === 'running') found.set(container.request.instance, host.name)
    return found
  }
  const loadOf = (instance: string): number | null => {
    const service = serviceIdOf(instance)
    const total = demand.get(service)
    if (total === undefined) return null
    const sharing = [...running().keys()].filter((other) => serviceIdOf(other) === service).length
    return sharing === 0 ? null : Math.min(100, Math.round((total / sharing) * 10) / 10)
  }

  // ---- the cloud and its machines -------------------------------------------------------------------------------------------
  let hostCount = 0
  const addHost = (name: string, capacity: Capacity): Host => {
    hostCount += 1
    const host = newHost(hostParts, { name, number: hostCount, capacity, rate: rateOf() })
    hosts.set(name, host)
    return host
  }
  const provider = fakeProvider({
    // The cloud has a clock of its own: a jump of ours is none of its.
    clock: {
      now: () => CLOUD_START_MS + Math.floor(clock.monotonicMs()),
      monotonicMs: clock.monotonicMs,
      setTimer: clock.setTimer,
    },
    random: nextRandom(),
    onRunning(machine) {
      const pool = options.pools?.find((candidate) => candidate.name === machine.request.pool)
      const settings = settingsOfUserData(machine.request.userData)
      // One that somebody else put up.
      if (machine.request.userData === '') return
      if (!pool || !settings) throw new Error(`machine ${machine.name} was told nothing of use`)
      trace.line(`vm ${machine.name} runs`)
      const host = addHost(machine.name, pool.capacity)
      host.token = settings.token
      bootAgent(hostParts, host)
    },
    onGone(machine) {
      trace.line(`vm ${machine.name} is gone`)
      const host = hosts.get(machine.name)
      if (!host) return
      killAgentOn(hostParts, host)
      host.gone = true
      host.watchdog?.end()
      network.drop(machine.name)
      hosts.delete(machine.name)
    },
  })
  const joinHttp = (host: Host): JoinHttp => ({
    get: async () => ({ status: 404, body: '' }),
    async postJson(url, body) {
      await sleep(clock, 3)
      const target = [present, old].find((each) => each !== null && url.startsWith(each.url)) ?? null
      if (!target || cut.has(host.name)) {
        await sleep(clock, cut.has(host.name) ? 20_000 : 1)
        throw new Error('no answer')
      }
      const answer = await Promise.race([
        askToJoin(target.coordinator, body as JoinRequest, host.address),
        sleep(clock, 20_000).then(() => null),
      ])
      if (answer === null || cut.has(host.name) || !target.life.alive) throw new Error('no answer within 20 s')
      return answer
    },
  })
  const hostParts: HostParts = {
    world: clock,
    network,
    trace,
    nextRandom,
    nextLife,
    joinHttp,
    loadOf,
    isGood: (image) => !badImages.has(image),
    tell,
  }
  const hostNamed = (name: string): Host => {
    const host = hosts.get(name)
    if (!host) throw new Error(`there is no host ${name}`)
    return host
  }

  // ---- coordinators ---------------------------------------------------------------------------------------------------------
  let present: CoordinatorProcess | null = null
  let old: CoordinatorProcess | null = null
  /** The life that is about to become the present coordinator. */
  let starting: Life | null = null
  const begin = async () => {
    const url = COORDINATOR_URLS.find((candidate) => candidate !== old?.url) ?? COORDINATOR_URLS[0]
    const process = await startCoordinatorProcess(
      {
        url,
        clock: machineClock(clock, options.coordinatorRate ?? rateOf()),
        random: nextRandom(),
        storeRandom: nextRandom(),
        disk,
        storeLevers: store,
        provider,
        network,
        trace,
        pools: options.pools ?? [],
        hub: options.hub ?? {},
        fleet: options.fleet ?? {},
        schedulers: [...(options.schedulers ?? [])],
        pullAhead: options.pullAhead ?? true,
        tell,
      },
      (life) => {
        starting = life
      },
    )
    present = process
  }
  /** A life that ends while it starts never serves; the caller goes on. */
  const startCoordinator = async () => {
    if (present) throw new Error('the coordinator runs already')
    let failure: unknown = null
    const begun = begin().catch((error: unknown) => {
      failure = error ?? new Error('it did not start')
    })
    void begun
    await clock.until(() => present !== null || failure !== null || starting?.alive === false, 'the coordinator serves', 60_000)
    if (failure !== null) throw failure
    starting = null
  }
  const lead = (): Coordinator => {
    if (!present) throw new Error('no coordinator runs')
    return present.coordinator
  }

  // ---- what users ask for ---------------------------------------------------------------------------------------------------
  const ask = async (prepare: (state: State, nowMs: number) => Prepared<unknown>) => {
    const { state } = lead()
    for (let attempt = 0; attempt < 20; attempt += 1) {
      const outcome = await state.commit(prepare(state, clock.now()).change)
      if (outcome.kind === 'committed') return
      if (outcome.kind !== 'conflict') throw new Error(`${outcome.kind}: ${outcome.detail}`)
    }
    throw new Error('conflicts do not end')
  }
  /** What users ask for takes virtual time. A coordinator that dies meanwhile gives no answer: CoordinatorDied. */
  const driven = async <T>(work: Promise<T>): Promise<T> => {
    const asked = present
    let over = false
    const done = work.finally(() => {
      over = true
    })
    done.catch(() => undefined)
    await clock.until(() => over || asked?.life.alive !== true, 'the coordinator has answered', 60_000)
    if (!over) throw new CoordinatorDied()
    return done
  }

  const cluster: SimCluster = {
    clock,
    network,
    provider,
    disk,
    store,
    trace,
    invariants: createInvariants(() => cluster),
    hosts,
    random,
    get coordinator() {
      return present?.coordinator ?? null
    },
    demand,
    badImages,
    onEffect: null,
    lead,
    host: hostNamed,
    startCoordinator,
    killCoordinator() {
      starting?.end()
      present?.kill()
      present = null
    },
    async takeOver() {
      if (!present || old) return
      old = present
      present = null
      trace.line('another coordinator takes over')
      await startCoordinator()
    },
    reachOnly(name, leader) {
      const other = leader === 'old' ? present?.url : leader === 'new' ? old?.url : null
      trace.line(`${name} reaches ${leader === null ? 'every leader' : `only the ${leader} leader`}`)
      network.block(name, other ?? null)
    },
    get hasOldLeader() {
      return old !== null
    },
    endOldLeader() {
      old?.kill()
      old = null
      for (const name of hosts.keys()) network.block(name, null)
    },
    startAgent: (name) => bootAgent(hostParts, hostNamed(name)),
    killAgent: (name) => killAgentOn(hostParts, hostNamed(name)),
    partition(name) {
      trace.line(`${name} is cut off`)
      cut.add(name)
      network.partition(name)
    },
    heal(name) {
      trace.line(`${name} is back`)
      cut.delete(name)
      network.heal(name)
    },
    jumpWall(who, ms) {
      trace.line(`wall clock of ${who} jumps ${ms} ms`)
      if (who === 'coordinator') present?.clock.jumpWall(ms)
      else hosts.get(who)?.clock.jumpWall(ms)
    },
    async deploy(spec) {
      await driven(ask((state, nowMs) => deployApp(state, { spec, source: '', by: 'operator:sim' }, nowMs)))
      cluster.invariants.acknowledged(spec)
    },
    async remove(app) {
      // Whether or not an answer comes, from now on it may be gone.
      cluster.invariants.forgotten(app)
      await driven(ask((state) => removeApp(state, { name: app, by: 'operator:sim' })))
    },
    scale: (app, service, count) => driven(ask((state) => scaleService(state, { app, service, count, by: 'operator:sim' }))),
    async createKey(name) {
      const { record } = await driven(lead().keys.create({ name, roles: [], expiresAtMs: null, actor: 'operator:sim' }))
      return record.id
    },
    async revokeKey(id) {
      await driven(lead().keys.revoke(id, 'operator:sim'))
      cluster.invariants.revoked(id)
    },
    running,
    drive: driven,
    advance: (ms) => clock.advance(ms),
    until: (condition, what, limitMs) => clock.until(condition, what, limitMs),
    async settle(limitMs = 120_000) {
      const endMs = clock.monotonicMs() + limitMs
      for (;;) {
        const open = cluster.invariants.unsettled()
        if (open === null) return
        if (clock.monotonicMs() >= endMs) throw new Error(`I10: not settled after ${limitMs} ms: ${open}`)
        await clock.advance(250)
      }
    },
    async stop() {
      for (const host of hosts.values()) {
        host.life?.end()
        host.watchdog?.end()
      }
      old?.kill()
      present?.kill()
      present = null
    },
  }
  let eventsTold = 0
  step = () => {
    for (; eventsTold < disk.events.length; eventsTold += 1) {
      const event = disk.events[eventsTold]
      trace.line(`event ${event?.type} ${event?.subject}: ${event?.message}`)
    }
    cluster.invariants.check()
  }

  await cluster.startCoordinator()
  for (let i = 1; i <= options.hosts; i += 1) {
    const host = addHost(`h${i}`, options.capacity ?? DEFAULT_CAPACITY)
    const token = await driven(lead().joinTokens.create({ machineId: null, labels: {}, actor: 'operator:sim' }))
    host.token = token.text
    bootAgent(hostParts, host)
  }
  await clock.until(() => connected(cluster, options.hosts), 'every host has joined and connected', 60_000)
  return cluster
}

/** The coordinator was killed while it was asked: what was asked for may be done or not. */
export class CoordinatorDied extends Error {
  constructor() {
    super('the coordinator died before it answered')
    this.name = 'CoordinatorDied'
  }
}

function connected(cluster: SimCluster, count: number): boolean {
  const nodes = [...(cluster.coordinator?.hub.observed.nodes() ?? [])]
  return nodes.filter((node) => node.connected).length >= count
}
