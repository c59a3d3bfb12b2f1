/** Builders of stored records with plain defaults. Times default to `T0`, ids to the app `shop`, service `web`. */
import type { AppRecord, InstanceRecord, NodeAssignments, ServiceRecord } from '../../coordinator/state/objects.ts'
import type { MachineRecord, NodeRecord, Pool } from '../../shared/model/node.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import { anAppSpec, aServiceSpec } from './specs.ts'

/** The wall time at which a virtual clock starts by default. */
export const T0 = Date.UTC(2026, 0, 5)

export function anAppRecord(fields: Partial<AppRecord> = {}): AppRecord {
  const spec = fields.spec ?? anAppSpec()
  return {
    name: spec.name,
    revision: 1,
    source: '',
    deployedAtMs: T0,
    deployedBy: 'operator:test',
    history: [],
    removing: false,
    ...fields,
    spec,
  }
}

export function aServiceRecord(fields: Partial<ServiceRecord> = {}): ServiceRecord {
  return {
    id: 'shop/web',
    desired: 1,
    pinned: null,
    rollout: null,
    generations: {},
    pending: [],
    ordinal: 1,
    lastScale: null,
    backoff: null,
    ...fields,
  }
}

/** Runs `aServiceSpec()` unless told otherwise; waits for a place unless `nodeId` is given. */
export function anInstanceRecord(fields: Partial<InstanceRecord> = {}): InstanceRecord {
  return {
    id: 'shop/web/1/1',
    revision: 1,
    specHash: aServiceSpec().specHash,
    nodeId: null,
    goal: 'run',
    stopReason: '',
    createdAtMs: T0,
    placedAtMs: fields.nodeId == null ? null : T0,
    stopAtMs: null,
    replaces: null,
    ...fields,
  }
}

export function someAssignments(nodeId: string, instances: readonly InstanceRecord[]): NodeAssignments {
  return { nodeId, instances }
}

export function aCapacity(fields: Partial<Capacity> = {}): Capacity {
  return { cpuMillis: 4_000, memoryBytes: 8 * 2 ** 30, diskBytes: 100 * 2 ** 30, slots: 100, ...fields }
}

export function aNodeRecord(fields: Partial<NodeRecord> = {}): NodeRecord {
  const id = fields.id ?? 'n-1'
  return {
    id,
    hostname: id,
    address: '10.0.0.1',
    labels: {},
    engineLabels: {},
    taints: [],
    platform: 'linux/amd64',
    runtimes: ['docker', 'process'],
    capacity: aCapacity(),
    pool: null,
    provider: null,
    zone: null,
    machineId: null,
    availability: 'active',
    drain: null,
    credentialHash: '0'.repeat(64),
    joinedAtMs: T0,
    agentVersion: '0.1.0',
    ...fields,
  }
}

/** A node that is being drained since `T0`, with a deadline of 15 min. */
export function aDrainingNode(fields: Partial<NodeRecord> = {}): NodeRecord {
  return aNodeRecord({
    availability: 'draining',
    drain: { reason: 'test', by: 'operator:test', startedAtMs: T0, deadlineAtMs: T0 + 900_000, deleteMachine: false },
    ...fields,
  })
}

export function aMachineRecord(fields: Partial<MachineRecord> = {}): MachineRecord {
  const id = fields.id ?? 'm-1'
  return {
    id,
    name: `test-${id}`,
    pool: 'small',
    provider: 'fake',
    phase: 'requested',
    providerId: null,
    nodeId: null,
    capacity: aCapacity(),
    priceUsdPerHour: 0.1,
    reason: 'test',
    requestedAtMs: T0,
    bootedAtMs: null,
    joinedAtMs: null,
    terminatingAtMs: null,
    goneAtMs: null,
    attempts: 0,
    lastError: null,
    ...fields,
  }
}

export function aPool(fields: Partial<Pool> = {}): Pool {
  return {
    name: 'small',
    provider: 'fake',
    offering: 'small',
    image: 'debian',
    zone: null,
    capacity: aCapacity(),
    priceUsdPerHour: 0.1,
    min: 0,
    max: 10,
    labels: {},
    taints: [],
    static: false,
    userData: 'script',
    billing: 'second',
    budgetUsdPerMonth: null,
    settings: {},
    ...fields,
  }
}
