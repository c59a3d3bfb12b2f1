/**
 * Composition of an agent from its parts, over whatever world it is handed: the real one by daemon.ts, a model by the simulator.
 *
 *   link ──desired──► reconciler ──► runtime          link ──routes, loads──► gateway
 *     ▲                  │ hooks: ready, withdraw, gone        link ──keys──► key ring ──► gateway
 *     └──status──────────┴──► gateway, registrar        meter ──report──► link
 */
import { type Clock, sleep } from '../shared/clock.ts'
import { messageOf, RetryableError } from '../shared/errors.ts'
import type { Files } from '../shared/files.ts'
import type { Logger } from '../shared/logger.ts'
import { createLoop } from '../shared/loop.ts'
import { type InstanceId, parseInstanceId, type ServiceId, serviceIdOf } from '../shared/model/identity.ts'
import type { ForeignService, InstanceUse } from '../shared/model/observation.ts'
import type { Dialer } from '../shared/protocol/connection.ts'
import type { Assignment, LogsRequestFrame } from '../shared/protocol/frames.ts'
import type { Random } from '../shared/random.ts'
import { createLeaseKeeper, type FenceHost } from './fence/lease-keeper.ts'
import type { StrictAssignment } from './fence/plan-lease.ts'
import type { GatewayEngine } from './gateway/engine.ts'
import type { KeyRing } from './gateway/key-ring.ts'
import type { Prober } from './health/prober.ts'
import { createLink, type HelloFacts, type Link } from './link/link.ts'
import { createLoadInbox, type LoadInbox } from './local-api/load-inbox.ts'
import { deltaReport } from './metering/delta-report.ts'
import type { Meter, MeteredInstance } from './metering/meter.ts'
import { createPullAhead, type PullAhead } from './reconcile/pull-ahead-loop.ts'
import { createReconciler, type Reconciler } from './reconcile/reconcile-loop.ts'
import type { IngressTarget } from './reconcile/run-step.ts'
import type { CatalogBackend } from './registrar/catalog-backend.ts'
import type { NodeFacts } from './registrar/plan-registrations.ts'
import { createRegistrar, type Registrar } from './registrar/registrar.ts'
import type { ForeignContainer, Runtime } from './runtime/runtime.ts'
import { serveLogs } from './serve-logs.ts'

/** The gateway as the agent uses it: an engine that also gives names to call by. */
export interface AgentGateway extends GatewayEngine {
  /** `name:address` of services that containers of that app may call by name. */
  hostsFor(app: string): readonly string[]
}

/** What parts outside this file need of the agent; known before any of them runs. */
export interface AgentView {
  readonly keys: KeyRing
  readonly loadInbox: LoadInbox
  /** Which instance has this source address; null for anybody else. */
  callerOf(address: string): { readonly instance: InstanceId; readonly service: ServiceId } | null
  staleAfterMs(): number
  /** Running instances as the meter wants them. */
  metered(): readonly MeteredInstance[]
  /** Images pulled ahead; null where no runtime has images. */
  pullAhead(): Pick<PullAhead, 'answer' | 'counters'> | null
  /** Answer of the local API's /v1/status; no secrets. */
  status(): unknown
}

export interface AgentDeps {
  readonly facts: HelloFacts
  readonly credential: string
  readonly urls: readonly string[]
  readonly stateDir: string
  readonly runtimes: readonly Runtime[]
  readonly prober: Prober
  readonly dialer: Dialer
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly files: Files
  readonly backend: CatalogBackend | null
  readonly registerForeign: boolean
  /** By it strict singletons end in time, whatever happens to this agent. */
  readonly fence: FenceHost
  /** Whether containers can ask for names of services whose routes come after their creation. Default: no. */
  namesAreServed?(): boolean
  openGateway(view: AgentView): Promise<AgentGateway>
  openMeter(view: AgentView, gateway: AgentGateway): Meter
  /** Environment that every container or process gets beside its own: where to push its load. */
  environmentFor(instance: InstanceId): Readonly<Record<string, string>>
  /** The instance is gone for good. */
  onInstanceGone?(instance: InstanceId): void
  /** The node left the cluster: nothing is to run here any more. */
  onLeave(reason: string): void
}

export interface Agent {
  readonly view: AgentView
  readonly link: Link
  readonly reconciler: Reconciler
  readonly registrar: Registrar
  /** Resolves when it works from what is on disk; the link dials in the background. */
  start(): Promise<void>
  /** Ends the agent; containers keep running and are adopted by the next one. */
  stop(): Promise<void>
}

const DEFAULT_REPORT_MS = 2_000
/** Pushes of many instances that come together make one report. */
const MOVES_MS = 50
/** Every so often everything is told again, should anything have been lost. */
const FULL_REPORT_EVERY = 30
/** The way in stays open so long after the containers are gone: what was under way was cut by the stop anyway. */
const CLOSE_AFTER_GONE_MS = 0

export async function createAgent(deps: AgentDeps): Promise<Agent> {
  const { clock, logger, random, files, facts } = deps
  const loadInbox = createLoadInbox(clock, () => moves.poke())
  let routed = new Set<ServiceId>()
  let sent: ReadonlyMap<string, InstanceUse> = new Map()
  let reports = 0
  /** Services of containers of others; null: not known yet. */
  let foreign: readonly ForeignService[] | null = null
  let foreignTold = true
  let life = new AbortController()
  const imageRuntime = deps.runtimes.find(({ name }) => name === 'docker')
  /** Where each instance listens, once its way in was opened. */
  const targets = new Map<InstanceId, IngressTarget>()

  const callerOf = (address: string) => {
    const instance = reconciler.instanceByAddress(address)
    return instance === undefined ? null : { instance, service: serviceIdOf(instance) }
  }
  const link: Link = createLink({
    dialer: deps.dialer,
    urls: deps.urls,
    credential: deps.credential,
    clock,
    random,
    logger: logger.with({ part: 'link' }),
    files,
    stateDir: deps.stateDir,
    identity: () => ({ ...facts, pullsAhead: imageRuntime !== undefined }),
    inventory: () => reconciler.inventory(),
    onDesired(assignments) {
      reconciler.setDesired(assignments, link.connected())
      leases.poke()
    },
    onKeys() {},
    onRoutes(routes) {
      routed = new Set(routes.map((route) => route.service))
      gateway.setRoutes(routes).then(
        () => reconciler.poke(),
        (error: unknown) => logger.error('routes could not be applied', { error: messageOf(error) }),
      )
    },
    onLoads: (loads) => gateway.setLoads(loads),
    onLogsRequest: (request) => logs(request),
    onPullAhead: (images) => pullAhead?.want(images),
    onLeave: deps.onLeave,
    onConnected() {
      reports = 0
      metering.poke()
    },
  })

  const view: AgentView = {
    keys: link.keyRing,
    loadInbox,
    callerOf,
    staleAfterMs: () => link.welcome()?.staleAfterMs ?? 86_400_000,
    metered: () => meteredInstances(reconciler, targets),
    pullAhead: () => pullAhead,
    status: () => ({
      nodeId: facts.nodeId,
      clusterId: facts.clusterId,
      version: facts.agentVersion,
      connected: link.connected(),
      keysRevision: link.keyRing.revision,
      instances: reconciler.inventory(),
      reasons: reconciler.reasons(),
      pullAhead: pullAhead?.answer() ?? null,
    }),
  }
  const gateway = await deps.openGateway(view)
  const reconciler: Reconciler = createReconciler({
    runtimes: deps.runtimes,
    prober: deps.prober,
    clock,
    logger: logger.with({ part: 'reconcile' }),
    lastContactMonotonicMs: () => leases.contactMs(),
    confirmedMonotonicMs: () => link.confirmedMs(),
    hooks: {
      async onStart(_instance, _runtime, id, assignment) {
        const [strict] = strictOf([assignment])
        if (strict !== undefined) await leases.hold(strict, id)
      },
      async onReady(instance, target, assignment) {
        targets.set(instance, target)
        const bindings = []
        for (const port of assignment.unit.ports) {
          const gatewayPort = await gateway.openIngress({
            instance,
            service: serviceIdOf(instance),
            containerPort: port.containerPort,
            protocol: port.protocol,
            access: assignment.unit.access,
            targetAddress: target.address,
            targetPort: target.portMap[port.containerPort] ?? port.containerPort,
            gatewayPort: null,
            hostPorts: assignment.unit.published
              .filter((published) => published.mode === 'host' && published.containerPort === port.containerPort)
              .map((published) => published.port),
          })
          bindings.push({ containerPort: port.containerPort, protocol: port.protocol, gatewayPort })
        }
        return bindings
      },
      onWithdraw: (instance) => registrar.withdraw(instance),
      inFlight: (instance) => gateway.inFlight(instance),
      async onGone(instance) {
        targets.delete(instance)
        await gateway.closeIngress(instance, CLOSE_AFTER_GONE_MS)
        loadInbox.forget(instance)
        registrar.forget(instance)
        deps.onInstanceGone?.(instance)
      },
    },
    extra(assignment) {
      const identity = parseInstanceId(assignment.instance)
      const service = serviceIdOf(assignment.instance)
      // Without DNS, names go into the hosts file (environment of a process) at the creation: it must not come before the routes.
      const asksLater = assignment.unit.runtime === 'docker' && deps.namesAreServed?.() === true
      if (!asksLater && assignment.unit.ports.length > 0 && !routed.has(service))
        throw new RetryableError(`the routes of ${service} have not come yet`)
      const hosts = identity === null ? [] : gateway.hostsFor(identity.app)
      return {
        environment: { ...environmentOf(assignment, hosts), ...deps.environmentFor(assignment.instance) },
        hosts: assignment.unit.runtime === 'docker' ? hosts : [],
      }
    },
    emit(statuses, gone) {
      link.sendStatus(statuses, gone)
      registrar.poke()
    },
    onPulls: () => pullAhead?.poke(),
  })
  const pullAhead: PullAhead | null =
    imageRuntime === undefined
      ? null
      : createPullAhead({
          runtime: imageRuntime,
          clock,
          logger: logger.with({ part: 'pull-ahead' }),
          instancePulls: () => reconciler.pulls(),
          tell: (answer) => link.sendPulledAhead(answer),
        })
  const leases = createLeaseKeeper({
    host: deps.fence,
    clock,
    logger: logger.with({ part: 'fence' }),
    assigned() {
      const assignments = reconciler.assignments()
      return assignments === null ? null : strictOf(assignments)
    },
    present: () => reconciler.present(),
    contactMs: () => link.contactMs(),
  })
  const registrarNode: NodeFacts = { hostname: facts.hostname, address: facts.address, registerUnlabelled: false }
  const registrar: Registrar = createRegistrar({
    backend: deps.backend,
    node: registrarNode,
    clock,
    logger: logger.with({ part: 'registrar' }),
    managed: () =>
      reconciler.inventory().flatMap((status) => {
        const unit = reconciler.assignmentOf(status.instance)?.unit
        return unit === undefined ? [] : [{ status, unit }]
      }),
    foreign: () => (deps.registerForeign ? foreignContainers(deps.runtimes) : Promise.resolve([])),
    onForeign(services) {
      foreign = services
      foreignTold = false
      metering.poke()
    },
  })
  const meter = deps.openMeter(view, gateway)
  const metering = createLoop({
    name: 'metering',
    clock,
    logger,
    debounceMs: 50,
    maxSleepMs: DEFAULT_REPORT_MS,
    async run() {
      const sample = await meter.sample()
      const full = reports % FULL_REPORT_EVERY === 0
      const delta = deltaReport(sent, sample.instances, full)
      sent = delta.sent
      link.sendReport({
        node: sample.node,
        instances: delta.instances,
        full,
        ...(foreign === null || (foreignTold && !full) ? {} : { foreign }),
      })
      if (link.connected()) {
        foreignTold = true
        reports += 1
      }
      return clock.now() + (link.welcome()?.reportIntervalMs ?? DEFAULT_REPORT_MS)
    },
  })
  /** A jump of load is told at once: whoever scales must not wait for the next sample to begin. */
  const moves = createLoop({
    name: 'moved-loads',
    clock,
    logger,
    debounceMs: MOVES_MS,
    async run() {
      const instances = meter.moved()
      if (instances.length === 0) return null
      sent = new Map([...sent, ...instances.map((use) => [use.instance, use] as const)])
      link.sendReport({ node: null, instances, full: false })
      return null
    },
  })
  const logs = serveLogs({
    link,
    clock,
    source(request: LogsRequestFrame) {
      const runtime = reconciler.runtimeOf(request.instance)
      const [id] = reconciler.containerIdsOf(request.instance)
      return runtime === undefined || id === undefined ? null : { runtime, id }
    },
  })

  return {
    view,
    link,
    reconciler,
    registrar,
    async start() {
      life = new AbortController()
      reconciler.start()
      await reconciler.observed
      await link.start()
      leases.start()
      registrar.start()
      metering.start()
      moves.start()
      pullAhead?.start()
      for (const runtime of deps.runtimes) watchOthers(runtime, life.signal)
    },
    async stop() {
      life.abort(new Error('the agent stops'))
      await pullAhead?.stop()
      await moves.stop()
      await metering.stop()
      await registrar.stop()
      await reconciler.stop()
      await leases.stop()
      // Statuses of the last steps still go out.
      await sleep(clock, 50)
      await link.stop()
      await gateway.stop()
    },
  }

  /** Containers of others come and go by themselves: each change makes the registrar look again. */
  function watchOthers(runtime: Runtime, signal: AbortSignal): void {
    if (!deps.registerForeign || runtime.foreignEvents === undefined) return
    const events = runtime.foreignEvents(signal)
    const follow = async () => {
      for await (const _ of events) registrar.poke()
    }
    follow().catch((error: unknown) => {
      if (!signal.aborted) logger.warn('containers of others are no longer watched, they are polled', { error: messageOf(error) })
    })
  }
}

function strictOf(assignments: readonly Assignment[]): readonly StrictAssignment[] {
  return assignments.flatMap(({ instance, unit }) =>
    unit.singletonStrictMs === null
      ? []
      : [{ instance, runtime: unit.runtime, afterMs: unit.singletonStrictMs, stopGraceMs: unit.stopGraceMs }],
  )
}

/** For processes, which have no hosts file: `RUBATO_HOST_<SERVICE>`. */
function environmentOf(assignment: Assignment, hosts: readonly string[]): Readonly<Record<string, string>> {
  const identity = parseInstanceId(assignment.instance)
  const base = { RUBATO_INSTANCE: assignment.instance, RUBATO_APP: identity?.app ?? '', RUBATO_SERVICE: identity?.service ?? '' }
  if (assignment.unit.runtime === 'docker') return base
  const named = hosts.map((host) => {
    const at = host.indexOf(':')
    return [
      `RUBATO_HOST_${host
        .slice(0, at)
        .toUpperCase()
        .replaceAll(/[^A-Z0-9]/g, '_')}`,
      host.slice(at + 1),
    ] as const
  })
  return { ...base, ...Object.fromEntries(named) }
}

function meteredInstances(reconciler: Reconciler, targets: ReadonlyMap<InstanceId, IngressTarget>): readonly MeteredInstance[] {
  return reconciler.inventory().flatMap((status): MeteredInstance[] => {
    const assignment = reconciler.assignmentOf(status.instance)
    if (assignment === undefined || status.startedAtMs === null) return []
    const { unit } = assignment
    const target = targets.get(status.instance)
    return [
      {
        instance: status.instance,
        ids: reconciler.containerIdsOf(status.instance),
        load: unit.load,
        limits: sumOf(unit.containers.map((container) => container.limits)),
        reservations: sumOf(unit.containers.map((container) => container.reservations)),
        address: target?.address ?? null,
        portMap: target?.portMap ?? {},
      },
    ]
  })
}

/** A sum over containers; a container without that limit makes the unit have none. */
function sumOf(parts: readonly { readonly cpuMillis?: number; readonly memoryBytes?: number }[]): {
  cpuMillis?: number
  memoryBytes?: number
} {
  const total = (key: 'cpuMillis' | 'memoryBytes') =>
    parts.every((part) => part[key] !== undefined) ? parts.reduce((sum, part) => sum + (part[key] ?? 0), 0) : undefined
  const cpuMillis = total('cpuMillis')
  const memoryBytes = total('memoryBytes')
  return { ...(cpuMillis === undefined ? {} : { cpuMillis }), ...(memoryBytes === undefined ? {} : { memoryBytes }) }
}

async function foreignContainers(runtimes: readonly Runtime[]): Promise<readonly ForeignContainer[]> {
  return (await Promise.all(runtimes.map((runtime) => runtime.foreign()))).flat()
}
