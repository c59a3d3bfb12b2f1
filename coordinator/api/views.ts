/** State as the API shows it: joins what is wanted (snapshot) with what is observed. Reads only; never shows a secret. */
import type { Calendar } from '../../shared/calendar.ts'
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'
import { type InstanceId, parseInstanceId, type ServiceId, serviceId } from '../../shared/model/identity.ts'
import type { MachineRecord, NodeRecord, Pool } from '../../shared/model/node.ts'
import { addResources, NO_RESOURCES, type Resources } from '../../shared/model/resources.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import type { ObjectiveView } from '../scaling/objective-book.ts'
import type { AppRecord, InstanceRecord, ServiceRecord } from '../state/objects.ts'
import { isRoutable, type Observed } from '../state/observed.ts'
import { drainWaits } from '../services/drain-waits.ts'
import { wantedCount } from '../services/service-plan.ts'
import type { Snapshot } from '../state/state.ts'
import { hasFailed, viewJob } from './view-job.ts'
import type { AppView, ForecastView, InstanceView, MachineView, NodeView, PoolView, ServiceView } from './schemas.ts'

export interface World {
  readonly snapshot: Snapshot
  readonly observed: Observed
  /** Remembers when cron jobs come next. Absent: asked anew each time. */
  readonly calendar?: Calendar
  /** What the demand of a service is expected to be. Absent: nothing is known of forecasts here. */
  forecast?(id: ServiceId): DemandForecast | null
  /** How its objective is kept. Absent: not known here. */
  objective?(id: ServiceId): ObjectiveView | null
  /** Load above which scaling adds instances now; null: it has not looked at it. Absent: not known here. */
  threshold?(id: ServiceId): number | null
  /** Why an instance without a node has none, as one line; null: nothing is known of it. Absent: not known here. */
  waits?(id: InstanceId): string | null
}

/** The spec that an instance runs: of its own revision, present or kept in the history. */
function specOf(snapshot: Snapshot, record: InstanceRecord): ServiceSpec | undefined {
  const identity = parseInstanceId(record.id)
  const app = identity ? snapshot.get('app', identity.app) : undefined
  if (!identity || !app) return undefined
  const spec: AppSpec | undefined =
    app.revision === record.revision ? app.spec : app.history.find(({ revision }) => revision === record.revision)?.spec
  return spec?.services.find(({ name }) => name === identity.service)
}

export function viewInstance({ observed, waits }: Pick<World, 'observed' | 'waits'>, record: InstanceRecord): InstanceView {
  const identity = parseInstanceId(record.id)
  const seen = observed.instance(record.id)
  const node = record.nodeId === null ? undefined : observed.node(record.nodeId)
  const waiting = record.nodeId === null ? 'pending' : 'placed'
  return {
    id: record.id,
    app: identity?.app ?? '',
    service: identity?.service ?? '',
    slot: identity?.slot ?? 0,
    generation: identity?.generation ?? 0,
    node: record.nodeId,
    goal: record.goal,
    phase: node?.liveness === 'lost' ? 'lost' : (seen?.phase ?? waiting),
    healthy: seen?.healthy ?? false,
    routable: isRoutable(seen, node),
    observed: seen !== undefined,
    restarts: seen?.restarts ?? 0,
    crashLooping: seen?.crashLooping ?? false,
    message:
      record.goal === 'stop' && record.stopReason !== ''
        ? record.stopReason
        : record.nodeId === null
          ? (waits?.(record.id) ?? '')
          : (seen?.message ?? ''),
    revision: record.revision,
    replaces: record.replaces,
    loadPercent: seen?.use?.loadPercent ?? null,
    use: seen?.use ? { cpuMillis: seen.use.cpuMillis, memoryBytes: seen.use.memoryBytes } : null,
    inFlight: seen?.use?.inFlight ?? null,
    ports: (seen?.ports ?? []).map((port) => ({ ...port })),
    containerId: seen?.containerId ?? '',
    createdAtMs: record.createdAtMs,
    startedAtMs: seen?.startedAtMs ?? null,
    readyAtMs: seen?.readyAtMs ?? null,
  }
}

/** What a service wants and has; `waiting` is an instance without a node, if there is one. */
function countInstances(world: World, app: AppRecord, spec: ServiceSpec) {
  const id = serviceId(app.name, spec.name)
  const record: ServiceRecord | undefined = world.snapshot.get('service', id)
  let waiting: InstanceId | null = null
  let ready = 0
  let updated = 0
  let completed = 0
  let running = 0
  let pending = 0
  let loadSum = 0
  let loads = 0
  for (const instance of world.snapshot.instancesOf(id)) {
    if (instance.goal === 'stop') continue
    if (instance.nodeId === null) {
      waiting ??= instance.id
      pending += 1
      continue
    }
    running += 1
    const seen = world.observed.instance(instance.id)
    if (seen?.phase === 'stopped' && instance.specHash === spec.specHash) completed += 1
    if (!isRoutable(seen, world.observed.node(instance.nodeId))) continue
    ready += 1
    if (instance.specHash === spec.specHash) updated += 1
    const loadPercent = seen?.use?.loadPercent ?? null
    if (loadPercent !== null) {
      loadSum += loadPercent
      loads += 1
    }
  }
  const work = viewJob(spec, record, world.calendar)
  return {
    waiting,
    job: work?.job ?? null,
    // What is wanted now: a pin counts before what scaling would have.
    desired:
      work?.desired ??
      (record === undefined ? spec.replicas : spec.mode === 'global' ? record.desired : wantedCount(spec, record)),
    ready,
    updated,
    completed: work?.completed ?? completed,
    running,
    pending,
    loadPercent: loads === 0 ? null : loadSum / loads,
  }
}

export function viewService(world: World, app: AppRecord, spec: ServiceSpec): ServiceView {
  const id = serviceId(app.name, spec.name)
  const record: ServiceRecord | undefined = world.snapshot.get('service', id)
  const { waiting, ...counts } = countInstances(world, app, spec)
  const { scale } = spec
  const before = servicesBefore(world, app, spec)
  return {
    ...counts,
    id,
    app: app.name,
    name: spec.name,
    image: spec.unit.containers[0]?.image ?? '',
    mode: spec.mode,
    pinned: record?.pinned ?? null,
    thresholdPercent: world.threshold?.(id) ?? null,
    waitsFor:
      before.length > 0
        ? `starts after ${before.map((name) => serviceId(app.name, name)).join(', ')}`
        : waiting === null
          ? null
          : (world.waits?.(waiting) ?? null),
    scale: scale ? { min: scale.min, max: scale.max, lowPercent: scale.lowPercent, highPercent: scale.highPercent } : null,
    forecast: viewForecast(world.forecast?.(id) ?? null),
    objective: viewObjective(world.objective?.(id) ?? null),
    ports: spec.published.map(({ port, containerPort, protocol, mode }) => ({ port, containerPort, protocol, mode })),
    rollout: record?.rollout ?? null,
    lastScale: record?.lastScale ?? null,
  }
}

/** Services of the app that hold this one up: it requires them first, and they have fewer ready or completed instances than they want. */
export function servicesBefore(world: World, app: AppRecord, spec: ServiceSpec): readonly string[] {
  if (spec.dependsOn.length === 0) return []
  const own = countInstances(world, app, spec)
  if (own.running + own.pending > 0 || own.desired === 0) return []
  return spec.dependsOn.flatMap(({ service, required }) => {
    const other = required ? app.spec.services.find(({ name }) => name === service) : undefined
    if (other === undefined) return []
    const { ready, completed, desired } = countInstances(world, app, other)
    return ready + completed < desired ? [service] : []
  })
}

function viewObjective(objective: ObjectiveView | null): ServiceView['objective'] {
  if (objective === null) return null
  const { objectiveMs, ...kept } = objective
  return { latencyP95Ms: objectiveMs, ...kept }
}

function viewForecast(forecast: DemandForecast | null): ForecastView | null {
  if (forecast === null) return null
  const { method, isTrusted, isJudged, horizonMs, peak, errorVsPersistence } = forecast
  return { method, trusted: isTrusted, judged: isJudged, horizonMs, peakPercent: peak, errorVsPersistence }
}

export function viewApp(world: World, app: AppRecord): AppView {
  const services = app.spec.services.map((spec) => viewService(world, app, spec))
  const failing = services.some(
    ({ rollout, job }) => rollout?.phase === 'failed' || rollout?.phase === 'paused' || (job !== null && hasFailed(job)),
  )
  const moving = services.some(
    ({ updated, completed, desired, rollout }) =>
      updated + completed < desired ||
      rollout?.phase === 'progressing' ||
      rollout?.phase === 'monitoring' ||
      rollout?.phase === 'rolling-back',
  )
  return {
    name: app.name,
    revision: app.revision,
    state: app.removing ? 'removing' : failing ? 'degraded' : moving ? 'progressing' : 'ready',
    deployedAtMs: app.deployedAtMs,
    deployedBy: app.deployedBy,
    services,
  }
}

/** What the instances of a node are charged for. */
function reservedOn(snapshot: Snapshot, nodeId: string): Resources {
  let sum = NO_RESOURCES
  for (const record of snapshot.get('assignments', nodeId)?.instances ?? []) {
    const spec = specOf(snapshot, record)
    if (spec) sum = addResources(sum, spec.unit.reservations)
  }
  return sum
}

export function viewNode({ snapshot, observed }: World, node: NodeRecord): NodeView {
  const seen = observed.node(node.id)
  return {
    id: node.id,
    hostname: node.hostname,
    address: node.address,
    platform: node.platform,
    runtimes: [...node.runtimes],
    pool: node.pool,
    provider: node.provider,
    zone: node.zone,
    machine: node.machineId,
    labels: { ...node.labels },
    taints: [...node.taints],
    availability: node.availability,
    liveness: seen?.liveness ?? 'unknown',
    drain: node.drain
      ? {
          reason: node.drain.reason,
          by: node.drain.by,
          startedAtMs: node.drain.startedAtMs,
          deadlineAtMs: node.drain.deadlineAtMs,
          waits: drainWaits(snapshot, node.id).map((wait) => ({ ...wait })),
        }
      : null,
    capacity: { ...node.capacity },
    reserved: { ...reservedOn(snapshot, node.id) },
    imagesAhead: seen?.ahead
      ? { here: [...seen.ahead.here], pending: [...seen.ahead.pending], failing: [...seen.ahead.failing] }
      : null,
    use: seen?.use ? { cpuMillis: seen.use.cpuMillis, memoryBytes: seen.use.memoryBytes } : null,
    instances: snapshot.get('assignments', node.id)?.instances.length ?? 0,
    joinedAtMs: node.joinedAtMs,
    agentVersion: node.agentVersion,
  }
}

export function viewMachine(machine: MachineRecord): MachineView {
  return {
    id: machine.id,
    name: machine.name,
    pool: machine.pool,
    provider: machine.provider,
    phase: machine.phase,
    providerId: machine.providerId,
    node: machine.nodeId,
    priceUsdPerHour: machine.priceUsdPerHour,
    reason: machine.reason,
    requestedAtMs: machine.requestedAtMs,
    joinedAtMs: machine.joinedAtMs,
    goneAtMs: machine.goneAtMs,
    attempts: machine.attempts,
    lastError: machine.lastError,
  }
}

export function viewPool(snapshot: Snapshot, pool: Pool): PoolView {
  const machines = [...snapshot.all('machine').values()].filter((machine) => machine.pool === pool.name)
  const count = (...phases: readonly string[]) => machines.filter(({ phase }) => phases.includes(phase)).length
  return {
    ...pool,
    capacity: { ...pool.capacity },
    labels: { ...pool.labels },
    taints: [...pool.taints],
    settings: { ...pool.settings },
    machines: { booting: count('requested', 'booting', 'joining'), joined: count('joined') },
  }
}

/**
 * The instance id of a path segment: the container's name form `app.service.slot.generation` (no escaping needed), or the
 * identity itself with its slashes percent-encoded. null when it is neither.
 */
export function instanceIdOfPath(segment: string): InstanceId | null {
  if (segment.includes('/')) return parseInstanceId(segment) ? segment : null
  const parts = segment.split('.')
  if (parts.length < 4) return null
  const [app, ...rest] = parts
  const generation = rest.pop()
  const slot = rest.pop()
  const id = `${app}/${rest.join('.')}/${slot}/${generation}`
  return parseInstanceId(id) ? id : null
}

/** One page of `items`, ordered by `keyOf`; `next` is what to send as `after` for the following page. */
export function page<T>(
  items: Iterable<T>,
  keyOf: (item: T) => string,
  query: { readonly limit?: number | undefined; readonly after?: string | undefined },
): { readonly items: readonly T[]; readonly next: string | null } {
  const limit = query.limit ?? 100
  const { after } = query
  // Only the first ones after `after` are kept in order, one more than shown: of 100,000 nobody sorts all for each page.
  const first: { readonly key: string; readonly item: T }[] = []
  for (const item of items) {
    const key = keyOf(item)
    if (after !== undefined && key <= after) continue
    const last = first.length > limit ? first.at(-1) : undefined
    if (last !== undefined && key >= last.key) continue
    let low = 0
    for (let high = first.length; low < high; ) {
      const middle = (low + high) >> 1
      if ((first[middle]?.key ?? '') <= key) low = middle + 1
      else high = middle
    }
    first.splice(low, 0, { key, item })
    if (first.length > limit + 1) first.pop()
  }
  const shown = first.slice(0, limit)
  return { items: shown.map(({ item }) => item), next: first.length > limit ? (shown.at(-1)?.key ?? null) : null }
}
