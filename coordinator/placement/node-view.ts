/**
 * The cluster as placement sees it, kept up to date node by node: only nodes whose record, assignments or observation changed
 * are built anew. Reads state and observations, writes nothing.
 */
import { type InstanceId, type NodeId, parseInstanceId, type ServiceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import { specOfInstance } from '../services/kept-specs.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { NodeObservation, Observed } from '../state/observed.ts'
import type { Snapshot, State } from '../state/state.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'
import { roomOnNode } from '../state/commit-room.ts'
import { type ChargeOf, DEFAULT_CHARGE, requestOf, reservedCharge, volumesOf } from './requests.ts'

export interface NodeView {
  /** Every node that has joined, by id. Closed ones carry the reason. */
  nodes(): readonly PlacementNode[]
  /** Rises when `nodes` answers something that may take what it did not take before: not when only a measurement changed. */
  readonly structure: number
  stop(): void
}

export function createNodeView(deps: {
  readonly state: State
  readonly observed: Observed
  readonly chargeOf?: ChargeOf
  /** Subscribes to services whose charge changed. */
  readonly onChargeChange?: (listener: (service: ServiceId) => void) => () => void
}): NodeView {
  const { state, observed } = deps
  const built = new Map<NodeId, PlacementNode>()
  const dirty = new Set<NodeId>()
  /** Nodes of which nothing changed but what was measured. */
  const measured = new Set<NodeId>()
  const replacements = new Map<string, readonly InstanceId[]>()
  const replaced = new Map<InstanceId, number>()
  let all = true
  let structure = 0
  let listed: readonly PlacementNode[] | null = null

  const noteReplacements = (objectKey: string, records: readonly InstanceRecord[]) => {
    const before = replacements.get(objectKey) ?? []
    const after = records.flatMap((record) => (record.replaces !== null && record.goal === 'run' ? [record.replaces] : []))
    if (after.length > 0) replacements.set(objectKey, after)
    else replacements.delete(objectKey)
    for (const id of after) replaced.set(id, (replaced.get(id) ?? 0) + 1)
    for (const id of before) {
      const count = (replaced.get(id) ?? 0) - 1
      if (count > 0) replaced.set(id, count)
      else replaced.delete(id)
    }
    for (const id of [...before, ...after]) {
      const nodeId = state.snapshot.instances().get(id)?.nodeId
      if (nodeId) dirty.add(nodeId)
    }
  }
  for (const [key, service] of state.snapshot.all('service')) noteReplacements(`service\n${key}`, service.pending)
  for (const [key, assignments] of state.snapshot.all('assignments'))
    noteReplacements(`assignments\n${key}`, assignments.instances)

  const unsubscribers = [
    state.onChange(({ keys }) => {
      for (const { kind, key } of keys) {
        if (kind === 'node' || kind === 'assignments') dirty.add(key)
        if (kind === 'assignments') noteReplacements(`${kind}\n${key}`, state.snapshot.get('assignments', key)?.instances ?? [])
        if (kind === 'service') noteReplacements(`${kind}\n${key}`, state.snapshot.get('service', key)?.pending ?? [])
      }
    }),
    observed.onChange(({ nodes, useOnly }) => {
      for (const id of nodes) (useOnly ? measured : dirty).add(id)
    }),
    deps.onChargeChange?.((service) => {
      for (const instance of state.snapshot.instancesOf(service)) if (instance.nodeId !== null) dirty.add(instance.nodeId)
    }),
  ]

  return {
    nodes() {
      if (all) for (const id of state.snapshot.all('node').keys()) dirty.add(id)
      all = false
      if (dirty.size === 0 && measured.size === 0 && listed) return listed
      if (dirty.size > 0) structure += 1
      for (const id of dirty) {
        const record = state.snapshot.get('node', id)
        if (!record) built.delete(id)
        else {
          const node = placementNodeOf(record, state.snapshot, observed, replaced, deps.chargeOf)
          built.set(id, { ...node, images: withKept(node.images, built.get(id)?.images) })
        }
      }
      for (const id of measured) {
        const node = built.get(id)
        const measuredUse = node && measuredUseOf(node.capacity, node.free, observed, id)
        if (node && measuredUse !== undefined && measuredUse !== node.measuredUse) built.set(id, { ...node, measuredUse })
      }
      dirty.clear()
      measured.clear()
      listed = [...built.values()].sort((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
      return listed
    },
    get structure() {
      return structure
    },
    stop() {
      for (const unsubscribe of unsubscribers) unsubscribe?.()
    },
  }
}

/** The request of an instance record, or null when its specification is gone. `home` is where its slot's volumes are. */
export function requestOfRecord(
  record: InstanceRecord,
  snapshot: Snapshot,
  chargeOf?: ChargeOf,
  pool: string | null = null,
): PlacementRequest | null {
  const identity = parseInstanceId(record.id)
  if (!identity) return null
  const spec = specOfInstance(snapshot.get('app', identity.app), record)
  if (!spec) return null
  const home = volumesOf(identity.app, spec.unit).length > 0 ? homeOf(record, snapshot) : null
  const request = requestOf(record.id, {
    app: identity.app,
    spec,
    revision: record.revision,
    home,
    pool,
    ...(chargeOf ? { chargeOf } : {}),
  })
  return spec.mode === 'global' && record.job !== undefined ? onlyOn(request, record.job.key) : request
}

/** A part of a global job is for one node; parts of two runs may share it. */
function onlyOn(request: PlacementRequest, nodeId: NodeId): PlacementRequest {
  const constraints = [...request.rules.constraints, { attribute: 'node.id', operator: '==', value: nodeId } as const]
  return { ...request, group: `${request.group}@${nodeId}`, rules: { ...request.rules, constraints, maxPerNode: null } }
}

/**
 * The node with the data of its slot: where an earlier generation is, or was as the service's record remembers. null: there is
 * none, or the node that had it has left the cluster.
 */
function homeOf(record: InstanceRecord, snapshot: Snapshot): NodeId | null {
  const slot = parseInstanceId(record.id)?.slot
  let home: InstanceRecord | null = null
  for (const other of snapshot.instancesOf(serviceIdOf(record.id))) {
    const identity = parseInstanceId(other.id)
    if (other.id === record.id || other.nodeId === null || identity?.slot !== slot) continue
    if (home === null || (parseInstanceId(home.id)?.generation ?? 0) < (identity?.generation ?? 0)) home = other
  }
  const nodeId = home?.nodeId ?? snapshot.get('service', serviceIdOf(record.id))?.homes?.[slot ?? 0]
  return nodeId !== undefined && nodeId !== null && snapshot.get('node', nodeId) !== undefined ? nodeId : null
}

/** Why a node takes no instances, or null when it does. Not observed since the coordinator's start is `not reported yet`. */
export function closedReason(record: NodeRecord, observation: NodeObservation | undefined): string | null {
  const liveness = observation?.liveness ?? 'unknown'
  if (liveness !== 'live') return liveness === 'unknown' ? 'not reported yet' : liveness
  return record.availability === 'active' ? null : record.availability
}

function placementNodeOf(
  record: NodeRecord,
  snapshot: Snapshot,
  observed: Observed,
  replaced: ReadonlyMap<InstanceId, number>,
  chargeOf: ChargeOf = reservedCharge,
): PlacementNode {
  const services = new Map<ServiceId, number>()
  const repels = new Set<ServiceId>()
  const hostPorts = new Set<string>()
  const volumes = new Map<string, Set<ServiceId>>()
  const images = new Set<string>()
  let { cpuMillis, memoryBytes, diskBytes, slots } = record.capacity
  const held = snapshot.get('assignments', record.id)?.instances ?? []
  for (const instance of held) {
    const request = requestOfRecord(instance, snapshot, chargeOf, record.pool)
    const charge = request?.charge ?? DEFAULT_CHARGE
    // What stops still holds its resources and ports until it is gone; for spreading it counts no more.
    cpuMillis -= charge.cpuMillis
    memoryBytes -= charge.memoryBytes
    diskBytes -= charge.diskBytes
    slots -= 1
    const service = serviceIdOf(instance.id)
    const counts = instance.goal === 'run' && !(replaced.has(instance.id) && isLeaving(instance, record, snapshot))
    if (counts) services.set(service, (services.get(service) ?? 0) + 1)
    if (!request) continue
    for (const port of request.hostPorts) hostPorts.add(port)
    for (const image of request.images) images.add(image)
    for (const volume of request.volumes) volumes.set(volume, (volumes.get(volume) ?? new Set()).add(service))
    if (counts && request.affinityRequired) for (const other of request.avoid) repels.add(other)
  }
  for (const image of observed.node(record.id)?.ahead?.here ?? []) images.add(image)
  return {
    id: record.id,
    hostname: record.hostname,
    labels: record.labels,
    engineLabels: record.engineLabels,
    taints: record.taints,
    platform: record.platform,
    runtimes: record.runtimes,
    pool: record.pool,
    provider: record.provider,
    zone: record.zone,
    capacity: record.capacity,
    // What a node holds is one object of the store, and must fit into a commit.
    free: { cpuMillis, memoryBytes, diskBytes, slots: Math.min(slots, roomOnNode(held)) },
    closed: closedReason(record, observed.node(record.id)),
    services,
    repels,
    hostPorts,
    volumes,
    images,
    measuredUse: measuredUseOf(record.capacity, { cpuMillis, memoryBytes, diskBytes, slots }, observed, record.id),
  }
}

/** Images of instances that are gone stay on the node for a while; so many are remembered. */
const MAX_IMAGES = 200

/** The images that are there, and of those that were, the latest that there is room to remember. */
function withKept(now: ReadonlySet<string>, before: ReadonlySet<string> | undefined): ReadonlySet<string> {
  const gone = [...(before ?? [])].filter((image) => !now.has(image))
  return gone.length === 0 ? now : new Set([...gone, ...now].slice(-Math.max(MAX_IMAGES, now.size)))
}

/** Measurements are taken in steps of a twentieth: noise must not make one node after another look the best. */
const MEASURED_STEPS = 20

/**
 * How full the node is by measurement: its scarcer resource, or what is reserved there times the mean load of its instances if that
 * is more (a node full of busy instances is fuller than its reservations say).
 * Reports are untrusted: what is no finite number counts as not reported (fault row 13).
 */
function measuredUseOf(capacity: Capacity, free: Capacity, observed: Observed, id: NodeId): number | null {
  const use = observed.node(id)?.use
  if (!use || capacity.cpuMillis <= 0 || capacity.memoryBytes <= 0) return null
  const share = Math.max(use.cpuMillis / capacity.cpuMillis, use.memoryBytes / capacity.memoryBytes)
  if (!Number.isFinite(share)) return null
  const reserved = 1 - Math.min(free.cpuMillis / capacity.cpuMillis, free.memoryBytes / capacity.memoryBytes)
  const busy = Math.max(0, share, reserved * meanLoad(observed, id))
  return Math.round(Math.min(1, busy) * MEASURED_STEPS) / MEASURED_STEPS
}

/** Mean load, 0–1, of the instances there that report one; 0 when none does. */
function meanLoad(observed: Observed, id: NodeId): number {
  let sum = 0
  let count = 0
  for (const instance of observed.instancesOn(id)) {
    const load = instance.use?.loadPercent
    if (load === null || load === undefined || !Number.isFinite(load)) continue
    sum += Math.min(100, Math.max(0, load)) / 100
    count += 1
  }
  return count === 0 ? 0 : sum / count
}

/** Whether a replaced instance will go: not one whose drain was taken back, or that is moved to even nodes out and may yet stay. */
function isLeaving(instance: InstanceRecord, node: NodeRecord, snapshot: Snapshot): boolean {
  if (node.availability !== 'active') return true
  const [app = '', name = ''] = instance.id.split('/')
  const spec = snapshot.get('app', app)?.spec.services.find((service) => service.name === name)
  return spec?.specHash !== instance.specHash
}
