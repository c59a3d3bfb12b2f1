/** Which services a change may concern, so that a change of one node does not look at every service. */
import { type NodeId, type ServiceId, serviceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { Observed, ObservedChange } from '../state/observed.ts'
import type { State, StateChange } from '../state/state.ts'

export interface DirtyServices {
  readonly services: Set<ServiceId>
  /** Apps whose own record may have to be made, completed or deleted. */
  readonly apps: Set<string>
  /** Everything: at the start, before anything else is marked, and now and then as a safety net. */
  markAll(): void
  markNode(nodeId: NodeId): void
  onState(change: StateChange): void
  onObserved(change: ObservedChange): void
}

export function createDirtyServices(state: State, observed: Observed): DirtyServices {
  const services = new Set<ServiceId>()
  const apps = new Set<string>()
  /** Services with instances on a node, as of the last look at its assignments. */
  const byNode = new Map<NodeId, Set<ServiceId>>()
  /** What was last known of a node, to tell a heartbeat from news. */
  const nodeKeys = new Map<NodeId, string>()
  /** Services that have a record, by app. */
  const recorded = new Map<string, Set<ServiceId>>()
  /** Services that every node may concern, by app; apps without any are left out. */
  const globals = new Map<string, readonly ServiceId[]>()

  const noteService = (id: ServiceId) => {
    const [app = ''] = id.split('/')
    const ids = recorded.get(app) ?? new Set()
    if (state.snapshot.get('service', id) === undefined) ids.delete(id)
    else ids.add(id)
    if (ids.size === 0) recorded.delete(app)
    else recorded.set(app, ids)
  }
  const noteApp = (name: string) => {
    const all = state.snapshot.get('app', name)?.spec.services ?? []
    const ids = all.flatMap((service) => (service.mode === 'global' ? [serviceId(name, service.name)] : []))
    if (ids.length === 0) globals.delete(name)
    else globals.set(name, ids)
  }
  const markService = (id: ServiceId) => {
    services.add(id)
    const [app = ''] = id.split('/')
    apps.add(app)
  }
  const markDependants = (id: ServiceId) => {
    const [app = '', name = ''] = id.split('/')
    for (const other of state.snapshot.get('app', app)?.spec.services ?? [])
      if (other.dependsOn.some((dependency) => dependency.service === name)) services.add(serviceId(app, other.name))
  }
  const markApp = (name: string) => {
    apps.add(name)
    for (const service of state.snapshot.get('app', name)?.spec.services ?? []) services.add(serviceId(name, service.name))
    for (const id of recorded.get(name) ?? []) services.add(id)
  }
  const markGlobal = () => {
    for (const ids of globals.values()) for (const id of ids) services.add(id)
  }
  const readNode = (nodeId: NodeId) => {
    for (const id of byNode.get(nodeId) ?? []) markService(id)
    const now = new Set((state.snapshot.get('assignments', nodeId)?.instances ?? []).map((record) => serviceIdOf(record.id)))
    for (const id of now) markService(id)
    if (now.size === 0) byNode.delete(nodeId)
    else byNode.set(nodeId, now)
  }
  const markNode = (nodeId: NodeId) => {
    readNode(nodeId)
    markGlobal()
  }
  const nodeKey = (nodeId: NodeId) => {
    const seen = observed.node(nodeId)
    const pending = seen?.ahead?.pending.join(' ') ?? ''
    return `${state.snapshot.get('node', nodeId)?.availability ?? 'none'} ${seen?.liveness ?? 'unknown'} ${pending}`
  }

  return {
    services,
    apps,
    markNode,
    markAll() {
      for (const app of state.snapshot.all('app').values()) {
        apps.add(app.name)
        noteApp(app.name)
        for (const service of app.spec.services) services.add(serviceId(app.name, service.name))
      }
      for (const id of state.snapshot.all('service').keys()) {
        noteService(id)
        markService(id)
      }
      for (const nodeId of state.snapshot.all('assignments').keys()) readNode(nodeId)
    },
    onState(change) {
      for (const { kind, key } of change.keys) {
        if (kind === 'service') {
          noteService(key)
          markService(key)
          // What a job has completed is in its record.
          markDependants(key)
        } else if (kind === 'app') {
          noteApp(key)
          markApp(key)
        } else if (kind === 'assignments') readNode(key)
        else if (kind === 'node') {
          nodeKeys.set(key, nodeKey(key))
          if (state.snapshot.get('node', key) === undefined) nodeKeys.delete(key)
          markNode(key)
        }
      }
    },
    onObserved(change) {
      if (change.useOnly) return
      for (const id of change.instances) {
        const service = serviceIdOf(id)
        markService(service)
        markDependants(service)
      }
      for (const nodeId of change.nodes) {
        const key = nodeKey(nodeId)
        if (nodeKeys.get(nodeId) === key) continue
        nodeKeys.set(nodeId, key)
        markNode(nodeId)
      }
    },
  }
}
