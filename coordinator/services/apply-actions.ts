/** Turns a plan of one service into one change of the state. Nothing is written here: the loop commits. */
import { instanceId, type NodeId } from '../../shared/model/identity.ts'
import type { AppRecord, InstanceRecord, NodeAssignments, ServiceRecord } from '../state/objects.ts'
import type { Change, Snapshot } from '../state/state.ts'
import { CLUSTER_KEY } from '../access/cluster.ts'
import { commitRoom, jsonBytes, mostWaiting, STOP_BYTES } from '../state/commit-room.ts'
import { nextRevision, runningOf } from './app-record.ts'
import { nextGeneration, withGeneration, withRetired, withRetiredHomes } from './generations.ts'
import { specOfInstance } from './kept-specs.ts'
import { type ServiceAction, strictMsOf } from './service-plan.ts'

/** Kept free for what every commit may hold besides: a rollout's state, an app that is rolled back, sums of events. */
const SPARE_OBJECTS = 4
const SPARE_BYTES = 20_000
/** More events of one kind in a commit become one. */
const MAX_EVENTS = 20

/** Puts as many of `actions` as one commit holds, in order, into `change`. Answers how many those were. */
export function applyActions(
  change: Change,
  snapshot: Snapshot,
  app: AppRecord,
  service: ServiceRecord,
  actions: readonly ServiceAction[],
  now: number,
): number {
  const [appName = '', serviceName = ''] = service.id.split('/')
  const nodes = new Map<NodeId, { instances: InstanceRecord[] }>()
  const counts = new Map<string, number>()
  let record = service
  const room = commitRoom()
  room.take(SPARE_OBJECTS, SPARE_BYTES + jsonBytes(service))
  let waiting = service.pending.length
  let applied = 0
  let deleted = false

  const tell = (type: string, subject: string, message: string, severity: 'info' | 'warning' | 'error' = 'info') => {
    const count = (counts.get(type) ?? 0) + 1
    counts.set(type, count)
    if (count > MAX_EVENTS) return
    const event = { actor: 'services', type, subject, message, severity }
    room.take(0, jsonBytes(event))
    change.event(event)
  }
  /** The instances of a node as this change leaves them; null when the commit is full. */
  const open = (nodeId: NodeId) => {
    const known = nodes.get(nodeId)
    if (known) return known
    const stored = snapshot.get('assignments', nodeId)
    if (!room.take(1, stored === undefined ? 0 : jsonBytes(stored) + STOP_BYTES * stored.instances.length) && nodes.size > 0)
      return null
    const opened = { instances: [...(stored?.instances ?? [])] }
    nodes.set(nodeId, opened)
    return opened
  }
  const edit = (id: string, update: (old: InstanceRecord) => InstanceRecord | null): boolean => {
    const found = snapshot.instances().get(id)
    if (found === undefined) return true
    if (found.nodeId === null) {
      record = { ...record, pending: edited(record.pending, id, () => null) }
      return true
    }
    const node = open(found.nodeId)
    if (node === null) return false
    node.instances = edited(node.instances, id, update)
    return true
  }

  for (const action of actions) {
    switch (action.kind) {
      case 'create': {
        // Those that wait by now come first; what follows does not depend on it.
        if (waiting >= mostWaiting(service.id)) break
        const generation = nextGeneration(record, action.slot, snapshot.instancesOf(service.id))
        const id = instanceId({ app: appName, service: serviceName, slot: action.slot, generation })
        const given = specOfInstance(app, { ...action, id })
        const strictMs = given === undefined ? null : strictMsOf(given.unit)
        const created: InstanceRecord = {
          id,
          revision: action.revision,
          specHash: action.specHash,
          nodeId: null,
          goal: 'run',
          stopReason: '',
          createdAtMs: now,
          placedAtMs: null,
          stopAtMs: null,
          replaces: action.replaces,
          ...(action.job === undefined ? {} : { job: action.job }),
          ...(strictMs === null ? {} : { strictMs }),
        }
        if (!room.take(0, jsonBytes(created))) return finish()
        waiting += 1
        record = { ...withGeneration(record, action.slot, generation), pending: [...record.pending, created] }
        tell(action.replaces === null ? 'instance.created' : 'instance.replacing', id, action.reason)
        break
      }
      case 'stop': {
        const stops = (old: InstanceRecord): InstanceRecord =>
          old.goal === 'stop' ? old : { ...old, goal: 'stop', stopReason: action.reason, stopAtMs: now }
        if (!edit(action.id, stops)) return finish()
        tell('instance.stopping', action.id, action.reason)
        break
      }
      case 'remove':
        if (!edit(action.id, () => null)) return finish()
        tell('instance.removed', action.id, action.reason)
        break
      case 'set-rollout':
        record = { ...record, rollout: action.rollout }
        tell(action.event, service.id, `revision ${action.rollout.toRevision}: ${action.rollout.message}`, action.severity)
        break
      case 'set-backoff':
        record = { ...record, backoff: action.backoff }
        if (action.backoff !== null)
          tell('service.failing', service.id, `${action.backoff.failures} failures in a row`, 'warning')
        break
      case 'set-completed':
        record = { ...record, completed: { ...record.completed, [action.slot]: action.specHash } }
        tell('instance.completed', `${service.id}/${action.slot}`, 'ran to its end')
        break
      case 'set-job':
        record = { ...record, job: action.job }
        for (const { type, message, severity } of action.events) tell(type, service.id, message, severity)
        break
      case 'rollback-app': {
        const target = app.history.find((entry) => entry.revision === action.toRevision)
        if (target === undefined) break
        const { spec, source } = target
        const next = { spec, source, by: 'services', failedReason: action.reason }
        change.put('app', app.name, nextRevision(app, next, now, runningOf(snapshot, app.name)))
        const message = `revision ${app.revision} is rolled back to ${target.revision}: ${action.reason}`
        change.event({ actor: 'services', type: 'app.rolled-back', subject: app.name, message, severity: 'error' })
        break
      }
      case 'delete-service':
        deleted = true
        tell('service.removed', service.id, 'its last instance has stopped')
        break
      default:
        action satisfies never
    }
    applied += 1
  }
  return finish()

  function finish(): number {
    for (const [type, count] of counts)
      if (count > MAX_EVENTS)
        change.event({
          actor: 'services',
          type,
          subject: service.id,
          message: `and ${count - MAX_EVENTS} more`,
          severity: 'info',
        })
    for (const [nodeId, { instances }] of nodes) {
      const value: NodeAssignments = { nodeId, instances }
      const isOrphan = instances.length === 0 && snapshot.get('node', nodeId) === undefined
      if (isOrphan) change.delete('assignments', nodeId)
      else change.put('assignments', nodeId, value)
    }
    if (deleted) {
      change.delete('service', service.id)
      const cluster = snapshot.get('cluster', CLUSTER_KEY)
      if (cluster !== undefined) change.put('cluster', CLUSTER_KEY, withRetiredHomes(withRetired(cluster, record), record))
    }
    if (!deleted && record !== service) change.put('service', service.id, record)
    return applied
  }
}

function edited(
  records: readonly InstanceRecord[],
  id: string,
  update: (old: InstanceRecord) => InstanceRecord | null,
): InstanceRecord[] {
  return records.flatMap((record) => (record.id === id ? (update(record) ?? []) : [record]))
}
