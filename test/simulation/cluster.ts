/**
 * A whole cluster in one process under virtual time, from one seed: the real coordinator and real agents over a model store,
 * network, engines and cloud. Nothing here waits for real, reads a disk or asks the machine for randomness, so the same seed and
 * the same script give the same trace. Levers of the models are the faults; `kill…` is SIGKILL (see life.ts).
 */
import { type Agent, createAgent } from '../../agent/agent.ts'
import { createProber } from '../../agent/health/prober.ts'
import { joinCluster } from '../../agent/join.ts'
import type { JoinHttp } from '../../agent/join-http.ts'
import { JoinRefusedError } from '../../coordinator/access/join.ts'
import { authenticateNode } from '../../coordinator/access/node-credentials.ts'
import { type Coordinator, createCoordinator } from '../../coordinator/coordinator.ts'
import type { FleetConfig } from '../../coordinator/fleet/config.ts'
import type { HubSettings } from '../../coordinator/hub/hub.ts'
import type { Prepared } from '../../coordinator/services/deploy.ts'
import { deployApp, removeApp, scaleService } from '../../coordinator/services/deploy.ts'
import type { Snapshot, State } from '../../coordinator/state/state.ts'
import type { Store } from '../../coordinator/state/store.ts'
import { renderUserData, settingsOfUserData } from '../../installer/cloud-init.ts'
import { type Clock, sleep } from '../../shared/clock.ts'
import { InputError, messageOf } from '../../shared/errors.ts'
import { randomIds } from '../../shared/ids.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { serviceIdOf } from '../../shared/model/identity.ts'
import type { Pool } from '../../shared/model/node.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import type { JoinRequest, JoinResponse } from '../../shared/protocol/join.ts'
import { type Random, seededRandom } from '../../shared/random.ts'
import { type FakeProvider, fakeProvider } from '../fakes/fake-provider.ts'
import { type FakeEngine, fakeEngine } from '../fakes/fake-runtime.ts'
import { memoryFiles } from '../fakes/memory-files.ts'
import { emptyDisk, type MemoryStoreDisk, memoryStore } from '../fakes/memory-store.ts'
import { type ModelNetwork, modelNetwork } from '../fakes/model-network.ts'
import { type VirtualClock, virtualClock } from '../fakes/virtual-clock.ts'
import { createInvariants, type Invariants } from './invariants.ts'
import { type Life, newLife } from './life.ts'
import { type ModelGateway, modelGateway, modelMeter, modelProbes } from './model-agent-parts.ts'
import { createTrace, type Trace } from './trace.ts'

/** Loopback, so that a join token without TLS is accepted; which host is meant the model network knows by itself. */
export const COORDINATOR_URL = 'http://127.0.0.1:7600'
const CLOUD_START_MS = Date.UTC(2026, 0, 5)
const STATE_DIR = '/state'

export interface ClusterOptions {
  readonly seed: number
  /** Hosts that are there from the beginning: `h1`, `h2` … */
  readonly hosts: number
  readonly capacity?: Capacity
  readonly pools?: readonly Pool[]
  readonly fleet?: Partial<FleetConfig>
  readonly hub?: Partial<HubSettings>
}

/** A machine with its engine and its disk; the agent on it comes and goes. */
export interface Host {
  readonly name: string
  readonly address: string
  readonly engine: FakeEngine
  readonly disk: Map<string, string>
  agent: Agent | null
  gateway: ModelGateway | null
  life: Life | null
  /** null until it joined. */
  nodeId: string | null
  /** The coordinator told it to leave. */
  left: boolean
}

export interface SimCluster {
  readonly clock: VirtualClock
  readonly network: ModelNetwork
  readonly provider: FakeProvider
  readonly disk: MemoryStoreDisk
  readonly trace: Trace
  readonly invariants: Invariants
  readonly hosts: ReadonlyMap<string, Host>
  /** For the scenario's own choices. */
  readonly random: Random
  /** null while it is dead. */
  readonly coordinator: Coordinator | null
  /** Demand of a service in percent of one instance; shared by its running containers. Absent: they report no load. */
  readonly demand: Map<string, number>
  /** Images whose programs never answer a probe. */
  readonly badImages: Set<string>
  /** The running coordinator; throws while there is none. */
  lead(): Coordinator
  host(name: string): Host
  startCoordinator(): Promise<void>
  killCoordinator(): void
  startAgent(name: string): void
  killAgent(name: string): void
  partition(name: string): void
  heal(name: string): void
  deploy(spec: AppSpec): Promise<void>
  remove(app: string): Promise<void>
  scale(app: string, service: string, count: number | null): Promise<void>
  /** Ids of containers that run, over all hosts: instance → host. */
  running(): Map<string, string>
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
  let step = () => {}
  const clock = virtualClock(undefined, { afterStep: () => step() })
  const trace = createTrace(() => clock.monotonicMs())
  const network = modelNetwork({ clock, random: nextRandom() })
  network.onDelivered(({ from, to, text }) => trace.silent(`${from}>${to} ${text}`))
  const disk = emptyDisk()
  const hosts = new Map<string, Host>()
  const demand = new Map<string, number>()
  const badImages = new Set<string>()
  const loadOf = (instance: string): number | null => {
    const service = serviceIdOf(instance)
    const total = demand.get(service)
    if (total === undefined) return null
    const sharing = [...running().keys()].filter((other) => serviceIdOf(other) === service).length
    return sharing === 0 ? null : Math.min(100, Math.round((total / sharing) * 10) / 10)
  }
  const running = (): Map<string, string> => {
    const found = new Map<string, string>()
    for (const host of hosts.values())
      for (const container of host.engine.containers.values())
        if (container.state === 'running') found.set(container.request.instance, host.name)
    return found
  }

  // ---- the coordinator ------------------------------------------------------------------------------------------------------
  let present: { readonly coordinator: Coordinator; readonly life: Life; readonly close: () => void } | null = null
  const provider = fakeProvider({
    // The cloud has a clock of its own: a jump of ours is none of its.
    clock: {
      now: () => CLOUD_START_MS + Math.floor(clock.monotonicMs()),
      monotonicMs: clock.monotonicMs,
      setTimer: clock.setTimer,
    },
    onRunning(machine) {
      const pool = options.pools?.find((candidate) => candidate.name === machine.request.pool)
      const settings = settingsOfUserData(machine.request.userData)
      if (!pool || !settings) throw new Error(`machine ${machine.name} was told nothing of use`)
      trace.line(`vm ${machine.name} runs`)
      addHost(machine.name, pool.capacity)
      boot(machine.name, settings.token)
    },
    onGone(machine) {
      trace.line(`vm ${machine.name} is gone`)
      if (!hosts.has(machine.name)) return
      killAgent(machine.name)
      network.drop(machine.name)
      hosts.delete(machine.name)
    },
  })
  const startCoordinator = async () => {
    if (present) throw new Error('the coordinator runs already')
    const life = newLife(clock)
    const own = nextRandom()
    const coordinator = await createCoordinator(
      {
        store: life.own(slowStore(memoryStore(disk), clock, nextRandom(), () => life.alive)),
        clock: life.clock,
        random: own,
        ids: randomIds(own),
        logger: trace.logger('coordinator'),
        files: life.own(memoryFiles()),
        providers: new Map([['fake', life.own(provider)]]),
        userData: async (_machine, _pool, joinToken) =>
          renderUserData({ kind: 'settings', urls: [COORDINATOR_URL], joinToken, agentSha256: {} }),
      },
      {
        stateDir: STATE_DIR,
        pools: options.pools ?? [],
        hub: options.hub ?? {},
        fleet: options.fleet ?? {},
        fleetEnabled: (options.pools ?? []).length > 0,
        strategy: 'spread',
        caDigest: null,
        urls: [COORDINATOR_URL],
      },
    )
    const close = network.listen(COORDINATOR_URL, {
      authenticate: (credential) => authenticateNode(coordinator.state.snapshot, credential),
      accept: (connection, nodeId) => coordinator.hub.accept(connection, nodeId),
    })
    trace.line(`coordinator starts, epoch ${coordinator.state.epoch}`)
    present = { coordinator, life, close }
    coordinator.start()
  }
  const killCoordinator = () => {
    if (!present) return
    trace.line('coordinator is killed')
    const { life, close } = present
    present = null
    life.end()
    close()
  }
  const lead = (): Coordinator => {
    if (!present) throw new Error('no coordinator runs')
    return present.coordinator
  }

  // ---- hosts and agents -----------------------------------------------------------------------------------------------------
  let hostCount = 0
  const addHost = (name: string, capacity: Capacity): Host => {
    hostCount += 1
    const prefix = `172.${16 + (hostCount >> 8)}.${hostCount & 255}`
    const engine = fakeEngine({ clock, addressPrefix: prefix })
    engine.onEffect = (operation, subject) => trace.line(`${name} ${operation} ${subject}`)
    engine.onEnd = (container) => trace.line(`${name} end ${container.name} ${container.exitCode}`)
    const host: Host = {
      name,
      address: `10.${hostCount >> 8}.${hostCount & 255}.1`,
      engine,
      disk: new Map(),
      agent: null,
      gateway: null,
      life: null,
      nodeId: null,
      left: false,
    }
    hosts.set(name, host)
    capacities.set(name, capacity)
    return host
  }
  const capacities = new Map<string, Capacity>()
  const boot = (name: string, token: string | null) => {
    const host = hostNamed(name)
    if (host.life?.alive) throw new Error(`an agent runs on ${name} already`)
    const life = newLife(clock)
    host.life = life
    trace.line(`${name} agent starts`)
    runAgent(host, life, token).catch((error: unknown) => {
      if (!life.alive) return
      trace.line(`${name} agent ends: ${messageOf(error)}`)
      if (host.life === life) host.life = null
      life.end()
    })
  }
  const runAgent = async (host: Host, life: Life, token: string | null) => {
    const own = nextRandom()
    const logger = trace.logger(host.name)
    const files = life.own(memoryFiles(host.disk))
    const capacity = capacities.get(host.name) ?? DEFAULT_CAPACITY
    const facts = {
      hostname: host.name,
      address: host.address,
      platform: 'linux/amd64',
      runtimes: ['docker' as const],
      capacity,
      labels: {},
      engineLabels: {},
      agentVersion: '0',
    }
    const identity = await joinCluster({
      token,
      tokenFile: null,
      urls: [COORDINATOR_URL],
      facts: async () => facts,
      machineId: host.name,
      stateDir: STATE_DIR,
      http: life.own(joinHttp(host)),
      files,
      clock: life.clock,
      random: own,
      logger,
    })
    host.nodeId = identity.nodeId
    const runtime = life.own(
      host.engine.runtime({ clusterId: identity.clusterId, nodeId: identity.nodeId, bridgeAddress: `${host.address}` }),
    )
    const gateway = modelGateway()
    host.gateway = gateway
    const agent = await createAgent({
      facts: { ...facts, clusterId: identity.clusterId, nodeId: identity.nodeId, bootId: `${host.name}-${nextLife()}` },
      credential: identity.credential,
      urls: [COORDINATOR_URL],
      stateDir: STATE_DIR,
      runtimes: [runtime],
      prober: createProber({
        clock: life.clock,
        logger,
        network: life.own(
          modelProbes(clock, (address) =>
            [...host.engine.containers.values()].some(
              (container) =>
                container.state === 'running' && container.address === address && !badImages.has(container.request.spec.image),
            ),
          ),
        ),
      }),
      dialer: life.own(network.dialer(host.name)),
      clock: life.clock,
      random: own,
      logger,
      files,
      backend: null,
      registerForeign: false,
      openGateway: async () => gateway,
      openMeter: (view) => modelMeter(view, loadOf),
      environmentFor: () => ({}),
      onLeave(reason) {
        trace.line(`${host.name} leaves: ${reason}`)
        host.left = true
      },
    })
    host.agent = agent
    await agent.start()
  }
  const joinHttp = (host: Host): JoinHttp => ({
    get: async () => ({ status: 404, body: '' }),
    async postJson(_url, body) {
      await sleep(clock, 3)
      const target = present
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
  const hostNamed = (name: string): Host => {
    const host = hosts.get(name)
    if (!host) throw new Error(`there is no host ${name}`)
    return host
  }
  const killAgent = (name: string) => {
    const host = hostNamed(name)
    if (!host.life?.alive) return
    trace.line(`${name} agent is killed`)
    host.life.end()
    host.agent = null
    host.gateway = null
    network.drop(name)
  }
  const cut = new Set<string>()

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
  /** What users ask for takes virtual time; the caller drives it. */
  const driven = async (work: Promise<void>) => {
    let over = false
    const done = work.finally(() => {
      over = true
    })
    done.catch(() => undefined)
    await clock.until(() => over, 'the coordinator has answered', 60_000)
    await done
  }

  const cluster: SimCluster = {
    clock,
    network,
    provider,
    disk,
    trace,
    invariants: createInvariants(() => cluster),
    hosts,
    random,
    get coordinator() {
      return present?.coordinator ?? null
    },
    demand,
    badImages,
    lead,
    host: hostNamed,
    startCoordinator: () => driven(startCoordinator()),
    killCoordinator,
    startAgent: (name) => boot(name, null),
    killAgent,
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
    async deploy(spec) {
      await driven(ask((state, nowMs) => deployApp(state, { spec, source: '', by: 'operator:sim' }, nowMs)))
      cluster.invariants.acknowledged(spec)
    },
    async remove(app) {
      await driven(ask((state) => removeApp(state, { name: app, by: 'operator:sim' })))
      cluster.invariants.forgotten(app)
    },
    scale: (app, service, count) => driven(ask((state) => scaleService(state, { app, service, count, by: 'operator:sim' }))),
    running,
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
      for (const host of hosts.values()) host.life?.end()
      present?.close()
      present?.life.end()
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
    await driven(
      lead()
        .joinTokens.create({ machineId: null, labels: {}, actor: 'operator:sim' })
        .then((token) => boot(host.name, token.text)),
    )
  }
  await clock.until(() => connected(cluster, options.hosts), 'every host has joined and connected', 60_000)
  return cluster
}

const DEFAULT_CAPACITY: Capacity = { cpuMillis: 4_000, memoryBytes: 8 * 2 ** 30, diskBytes: 2 ** 37, slots: 100 }

function connected(cluster: SimCluster, count: number): boolean {
  const nodes = [...(cluster.coordinator?.hub.observed.nodes() ?? [])]
  return nodes.filter((node) => node.connected).length >= count
}

/** The API's answer to a request to join, as far as the agent looks at it. */
async function askToJoin(
  coordinator: Coordinator,
  request: JoinRequest,
  address: string,
): Promise<{ status: number; body: string }> {
  try {
    const response: JoinResponse = await coordinator.join(request, address)
    return { status: 200, body: JSON.stringify(response) }
  } catch (error) {
    const status = error instanceof JoinRefusedError ? error.status : error instanceof InputError ? 422 : 503
    return { status, body: JSON.stringify({ detail: messageOf(error) }) }
  }
}

/** Commits take a little time, in order, as on a disk: what was not written when its process died was never written. */
function slowStore(store: Store, clock: Clock, random: Random, isAlive: () => boolean): Store {
  let freeAtMs = 0
  return {
    load: () => store.load(),
    events: (query) => store.events(query),
    close: () => store.close(),
    async commit(operations, options) {
      freeAtMs = Math.max(freeAtMs, clock.monotonicMs()) + 0.2 + random.next()
      await sleep(clock, freeAtMs - clock.monotonicMs())
      if (!isAlive()) return new Promise<never>(() => {})
      return store.commit(operations, options)
    },
  }
}

/** What a coordinator's snapshot holds, for checks. */
export function appsOf(snapshot: Snapshot): readonly AppSpec[] {
  return [...snapshot.all('app').values()].filter((app) => !app.removing).map((app) => app.spec)
}
