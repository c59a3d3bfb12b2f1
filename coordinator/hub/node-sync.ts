/**
 * Brings each connected agent's sets (desired, keys, routes) up to date with the state and with what was observed. Changes only
 * mark what they touch; `flush` recomputes that and sends deltas. Invariants: a set's revision never falls while the epoch lasts;
 * a node gets full sets before any delta; keys and routes go before the instances that need them.
 */
import type { PushedKey } from '../../shared/model/access.ts'
import { type NodeId, serviceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { Clock } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import { type Assignment, type HelloFrame, type Route, routeKey, type ServicePolicy } from '../../shared/protocol/frames.ts'
import type { NodeAssignments } from '../state/objects.ts'
import type { Observed } from '../state/observed.ts'
import type { Snapshot, StateChange } from '../state/state.ts'
import { diffSets, isEmptyDiff } from './diff-sets.ts'
import { createKeyAcks } from './key-acks.ts'
import { partsOfService } from './names.ts'
import { planDesired } from './plan-desired.ts'
import { type KeyNeed, keyNeedOf, planKeys, planPolicies } from './plan-keys.ts'
import { createRouteTable, type ServiceRoutesChange } from './route-table.ts'
import { createJsonMemo, createSentSet, putItems, removeItems, type SentSet, type SetKind } from './sent-set.ts'

export interface NodeSyncDeps {
  readonly epoch: number
  readonly snapshot: Snapshot
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  /** Sends to the node's session, if it has one. */
  send(nodeId: NodeId, text: string): void
  /** Something was marked: call `flush` soon. */
  onDirty(): void
}

export interface KeysApplied {
  readonly applied: readonly NodeId[]
  /** Nodes that have not confirmed: connected or not. */
  readonly pending: readonly NodeId[]
  /** Those of `pending` that have no connection at present: their bound is `staleAfter` (fault row 39). */
  readonly disconnected: readonly NodeId[]
}

export interface NodeSync {
  addNode(id: NodeId): void
  removeNode(id: NodeId): void
  /** A session was welcomed: it gets full sets at the next flush. */
  attach(id: NodeId, hello: HelloFrame, epoch: number): void
  detach(id: NodeId): void
  stateChanged(change: StateChange): void
  /** Something of the service's instances or of their nodes changed. */
  serviceChanged(service: string): void
  ack(id: NodeId, what: SetKind, revision: number): void
  resync(id: NodeId, what: SetKind): void
  flush(): void
  /** Sends the loads of these services' instances to whoever routes to them. */
  sendLoads(loads: ReadonlyMap<string, ReadonlyMap<string, number>>): void
  appliedDesired(id: NodeId): number
  /** Highest keys revision that the node is known to have applied, comparable to `keysRevision`. */
  appliedKeys(id: NodeId): number
  keysRevision(): number
  keysAppliedBy(revision: number): KeysApplied
}

interface NodeEntry {
  readonly id: NodeId
  readonly sets: Readonly<Record<SetKind, SentSet>>
  attached: boolean
  wanted: NodeAssignments | undefined
  apps: ReadonlySet<string>
  assignments: ReadonlyMap<string, Assignment>
  policies: ReadonlyMap<string, ServicePolicy>
  keys: ReadonlyMap<string, PushedKey>
  readonly routes: Map<string, Route>
}

const ALL_SETS: readonly SetKind[] = ['keys', 'desired', 'routes']
const NONE: ReadonlyMap<string, never> = new Map<string, never>()

export function createNodeSync(deps: NodeSyncDeps): NodeSync {
  const { snapshot, observed, epoch, logger } = deps
  const nodes = new Map<NodeId, NodeEntry>()
  const nodesOfApp = new Map<string, Set<NodeId>>()
  const servicesOfApp = new Map<string, readonly string[]>()
  const ordinals = new Map<string, number>()
  const table = createRouteTable(snapshot, observed)
  const jsonOf = createJsonMemo()
  let keysByNeed = new Map<string, ReadonlyMap<string, PushedKey>>()
  const keyAcks = createKeyAcks()
  let meshSecretSent = snapshot.get('cluster', 'cluster')?.meshSecret
  const dirty = {
    full: new Map<NodeId, Set<SetKind>>(),
    desired: new Set<NodeId>(),
    keys: new Set<NodeId>(),
    keyRecords: false,
    routes: new Set<NodeId>(),
    services: new Set<string>(),
  }
  const appOf = (name: string) => snapshot.get('app', name)

  for (const id of snapshot.all('node').keys()) addNode(id)
  for (const name of snapshot.all('app').keys()) refreshApp(name)

  function addNode(id: NodeId): void {
    if (nodes.has(id)) return
    const entry: NodeEntry = {
      id,
      sets: {
        desired: createSentSet('desired', epoch),
        keys: createSentSet('keys', epoch),
        routes: createSentSet('routes', epoch),
      },
      attached: false,
      wanted: undefined,
      apps: new Set(),
      assignments: NONE,
      policies: NONE,
      keys: NONE,
      routes: new Map(),
    }
    nodes.set(id, entry)
    readWanted(entry)
  }

  /** Takes over the node's assignments and marks the services whose records changed with it. */
  function readWanted(entry: NodeEntry): void {
    const before = entry.wanted
    entry.wanted = snapshot.get('assignments', entry.id)
    if (before === entry.wanted) return
    const old = new Map((before?.instances ?? []).map((record) => [record.id, record]))
    for (const record of entry.wanted?.instances ?? []) {
      const same = old.get(record.id)
      if (!same || same.goal !== record.goal || same.specHash !== record.specHash) dirty.services.add(serviceIdOf(record.id))
      old.delete(record.id)
    }
    for (const id of old.keys()) dirty.services.add(serviceIdOf(id))
    const apps = new Set((entry.wanted?.instances ?? []).map((record) => partsOfService(record.id).app))
    for (const app of entry.apps) if (!apps.has(app)) leaveApp(app, entry.id)
    for (const app of apps) if (!entry.apps.has(app)) joinApp(app, entry.id)
    if (apps.size !== entry.apps.size || [...apps].some((app) => !entry.apps.has(app))) dirty.routes.add(entry.id)
    entry.apps = apps
    dirty.desired.add(entry.id)
    dirty.keys.add(entry.id)
  }

  function joinApp(app: string, id: NodeId): void {
    const group = nodesOfApp.get(app) ?? new Set()
    group.add(id)
    nodesOfApp.set(app, group)
  }
  function leaveApp(app: string, id: NodeId): void {
    const group = nodesOfApp.get(app)
    group?.delete(id)
    if (group?.size === 0) nodesOfApp.delete(app)
  }

  function refreshApp(name: string): void {
    const app = appOf(name)
    for (const id of servicesOfApp.get(name) ?? []) dirty.services.add(id)
    if (app)
      servicesOfApp.set(
        name,
        app.spec.services.map((spec) => serviceId(name, spec.name)),
      )
    else servicesOfApp.delete(name)
    for (const id of servicesOfApp.get(name) ?? []) dirty.services.add(id)
    for (const id of nodesOfApp.get(name) ?? []) {
      dirty.desired.add(id)
      dirty.keys.add(id)
      dirty.routes.add(id)
    }
  }

  function markFull(id: NodeId, kinds: readonly SetKind[]): void {
    const marked = dirty.full.get(id) ?? new Set()
    for (const kind of kinds) marked.add(kind)
    dirty.full.set(id, marked)
    deps.onDirty()
  }

  function keysFor(need: KeyNeed, previous: ReadonlyMap<string, PushedKey>): ReadonlyMap<string, PushedKey> {
    const known = keysByNeed.get(need.text)
    if (known) return known
    const keys = planKeys(need, snapshot.all('key').values(), deps.clock.now(), previous)
    keysByNeed.set(need.text, keys)
    return keys
  }

  function push(entry: NodeEntry, kind: SetKind, texts: readonly string[]): void {
    if (kind === 'keys') keyAcks.sent(entry.id, entry.sets.keys.revision)
    for (const text of texts) deps.send(entry.id, text)
  }

  function syncDesired(entry: NodeEntry, full: boolean): void {
    const plan = planDesired(entry.wanted, appOf, entry.assignments)
    for (const reason of plan.reasons)
      logger.warn('an instance cannot be sent to its node', { nodeId: entry.id, reason: reason.text, instanceId: reason.subject })
    const diff = diffSets(full ? NONE : entry.assignments, plan.assignments)
    entry.assignments = plan.assignments
    if (!full && isEmptyDiff(diff)) return
    const items = [...putItems('put', diff.put, jsonOf), ...removeItems('remove', diff.remove)]
    push(entry, 'desired', full ? entry.sets.desired.full(items) : entry.sets.desired.delta(items))
  }

  function syncKeys(entry: NodeEntry, full: boolean): void {
    const policies = planPolicies(entry.wanted, appOf, entry.policies)
    const keys = keysFor(keyNeedOf(policies), entry.keys)
    const policyDiff = diffSets<ServicePolicy>(full ? NONE : entry.policies, policies)
    const keyDiff = diffSets<PushedKey>(full ? NONE : entry.keys, keys)
    entry.policies = policies
    entry.keys = keys
    if (!full && isEmptyDiff(policyDiff) && isEmptyDiff(keyDiff)) return
    const items = [
      ...putItems('putKeys', keyDiff.put, jsonOf),
      ...removeItems('removeKeys', keyDiff.remove),
      ...putItems('putPolicies', policyDiff.put, jsonOf),
      ...removeItems('removePolicies', policyDiff.remove),
    ]
    const meshSecret = snapshot.get('cluster', 'cluster')?.meshSecret
    const extra = meshSecret === undefined ? {} : { meshSecret }
    push(entry, 'keys', full ? entry.sets.keys.full(items, extra) : entry.sets.keys.delta(items))
  }

  function syncRoutes(entry: NodeEntry, full: boolean): void {
    const next = new Map<string, Route>()
    for (const service of table.servicesFor(entry.apps))
      for (const route of table.of(service)) next.set(routeKey(route.service, route.containerPort), route)
    const diff = diffSets(full ? NONE : entry.routes, next)
    entry.routes.clear()
    for (const [key, route] of next) entry.routes.set(key, route)
    if (!full && isEmptyDiff(diff)) return
    const items = [...putItems('put', diff.put, jsonOf), ...removeItems('remove', diff.remove)]
    push(entry, 'routes', full ? entry.sets.routes.full(items) : entry.sets.routes.delta(items))
    sendKnownLoads(entry, diff.put.values())
  }

  /** Loads are sent when they change: a gateway that hears of an instance for the first time would take a steady one for half full. */
  function sendKnownLoads(entry: NodeEntry, routes: Iterable<Route>): void {
    const loads: Record<string, number> = {}
    for (const { endpoints } of routes)
      for (const { instance } of endpoints) {
        const loadPercent = observed.instance(instance)?.use?.loadPercent
        if (typeof loadPercent === 'number') loads[instance] = Math.round(loadPercent)
      }
    if (Object.keys(loads).length > 0) deps.send(entry.id, JSON.stringify({ type: 'loads', loads }))
  }

  /** Only the changed services of one node: what a readiness change costs. */
  function patchRoutes(entry: NodeEntry, changes: readonly ServiceRoutesChange[]): void {
    const put: Route[] = []
    const remove: string[] = []
    for (const change of changes) {
      for (const route of change.put) {
        entry.routes.set(routeKey(route.service, route.containerPort), route)
        put.push(route)
      }
      for (const key of change.remove) if (entry.routes.delete(key)) remove.push(key)
    }
    if (put.length === 0 && remove.length === 0) return
    push(entry, 'routes', entry.sets.routes.delta([...putItems('put', put, jsonOf), ...removeItems('remove', remove)]))
  }

  /** Refreshes the marked services; returns the changes that each node must be told. */
  function refreshServices(): Map<NodeId, ServiceRoutesChange[]> {
    const patches = new Map<NodeId, ServiceRoutesChange[]>()
    for (const service of dirty.services) {
      const change = table.refresh(service)
      if (!change) continue
      if (change.publishedChanged) for (const id of nodes.keys()) dirty.routes.add(id)
      const concerned = table.published.has(service) ? nodes.keys() : (nodesOfApp.get(partsOfService(service).app) ?? [])
      for (const id of concerned) {
        const list = patches.get(id)
        if (list) list.push(change)
        else patches.set(id, [change])
      }
    }
    dirty.services.clear()
    return patches
  }

  const attachedEntries = (ids: Iterable<NodeId>) =>
    [...ids].flatMap((id) => {
      const entry = nodes.get(id)
      return entry?.attached ? [entry] : []
    })

  function loadsOf(entry: NodeEntry, loads: ReadonlyMap<string, ReadonlyMap<string, number>>): Record<string, number> {
    const found: Record<string, number> = {}
    const take = (service: string) => {
      for (const [instance, load] of loads.get(service) ?? []) found[instance] = load
    }
    for (const service of loads.keys())
      if (table.published.has(service) || entry.apps.has(partsOfService(service).app)) take(service)
    return found
  }

  return {
    addNode(id) {
      addNode(id)
      deps.onDirty()
    },
    removeNode(id) {
      const entry = nodes.get(id)
      if (!entry) return
      for (const app of entry.apps) leaveApp(app, id)
      for (const record of entry.wanted?.instances ?? []) dirty.services.add(serviceIdOf(record.id))
      nodes.delete(id)
      keyAcks.forget(id)
      dirty.full.delete(id)
      deps.onDirty()
    },
    attach(id, hello, ownEpoch) {
      const entry = nodes.get(id)
      if (!entry) return
      entry.attached = true
      const seen = hello.epoch === ownEpoch
      entry.sets.desired.restart(seen ? hello.desiredRevision : 0)
      entry.sets.keys.restart(seen ? hello.keysRevision : 0)
      entry.sets.routes.restart(seen ? hello.routesRevision : 0)
      keyAcks.attached(id, entry.sets.keys.revision + 1)
      markFull(id, ALL_SETS)
    },
    detach(id) {
      const entry = nodes.get(id)
      if (entry) entry.attached = false
      dirty.full.delete(id)
    },
    stateChanged(change) {
      let keysTouched = false
      for (const { kind, key } of change.keys) {
        if (kind === 'assignments') {
          const entry = nodes.get(key)
          if (entry) readWanted(entry)
          keysTouched = true
        } else if (kind === 'app') {
          refreshApp(key)
          keysTouched = true
        } else if (kind === 'service') {
          const ordinal = snapshot.get('service', key)?.ordinal ?? 0
          if (ordinals.get(key) !== ordinal) dirty.services.add(key)
          ordinals.set(key, ordinal)
        } else if (kind === 'key') {
          dirty.keyRecords = true
          keysTouched = true
        } else if (kind === 'cluster') {
          const secret = snapshot.get('cluster', 'cluster')?.meshSecret
          if (secret !== meshSecretSent) for (const id of nodes.keys()) markFull(id, ['keys'])
          meshSecretSent = secret
        } else if (kind === 'node') {
          // Address and zone are part of every route to it.
          for (const record of nodes.get(key)?.wanted?.instances ?? []) dirty.services.add(serviceIdOf(record.id))
        } else continue
        deps.onDirty()
      }
      if (keysTouched) keyAcks.changed()
    },
    serviceChanged(service) {
      dirty.services.add(service)
      deps.onDirty()
    },
    ack(id, what, revision) {
      const entry = nodes.get(id)
      if (!entry) return
      entry.sets[what].ack(revision)
      if (what === 'keys') keyAcks.acked(id, entry.sets.keys.acked)
    },
    resync(id, what) {
      markFull(id, [what])
    },
    flush() {
      const patches = refreshServices()
      if (dirty.keyRecords) {
        // Every need's set is made anew from the one before, so that unchanged keys keep their identity.
        const before = keysByNeed
        keysByNeed = new Map()
        for (const entry of nodes.values()) {
          if (!entry.attached) continue
          const need = keyNeedOf(entry.policies)
          keysFor(need, before.get(need.text) ?? entry.keys)
          dirty.keys.add(entry.id)
        }
      }
      const isFull = (id: NodeId, kind: SetKind) => dirty.full.get(id)?.has(kind) ?? false
      const concerned = new Set([...dirty.full.keys(), ...dirty.keys, ...dirty.desired, ...dirty.routes, ...patches.keys()])
      for (const entry of attachedEntries(concerned)) {
        if (isFull(entry.id, 'keys') || dirty.keys.has(entry.id)) syncKeys(entry, isFull(entry.id, 'keys'))
        if (isFull(entry.id, 'routes') || dirty.routes.has(entry.id)) syncRoutes(entry, isFull(entry.id, 'routes'))
        else patchRoutes(entry, patches.get(entry.id) ?? [])
        // Last: an instance's hosts file is made of the routes, once, when its container is created.
        if (isFull(entry.id, 'desired') || dirty.desired.has(entry.id)) syncDesired(entry, isFull(entry.id, 'desired'))
      }
      keyAcks.flushed()
      dirty.full.clear()
      dirty.desired.clear()
      dirty.keys.clear()
      dirty.routes.clear()
      dirty.keyRecords = false
    },
    sendLoads(loads) {
      const texts = new Map<string, string>()
      for (const entry of nodes.values()) {
        if (!entry.attached) continue
        const group = [...entry.apps].sort().join('\n')
        let text = texts.get(group)
        if (text === undefined) {
          const found = loadsOf(entry, loads)
          text = Object.keys(found).length === 0 ? '' : JSON.stringify({ type: 'loads', loads: found })
          texts.set(group, text)
        }
        if (text !== '') deps.send(entry.id, text)
      }
    },
    appliedDesired: (id) => nodes.get(id)?.sets.desired.acked ?? 0,
    appliedKeys: (id) => (nodes.get(id)?.attached ? keyAcks.appliedBy(id) : 0),
    keysRevision: () => keyAcks.revision(),
    keysAppliedBy(revision) {
      const applied: NodeId[] = []
      const pending: NodeId[] = []
      const disconnected: NodeId[] = []
      for (const entry of nodes.values()) {
        if (entry.attached && keyAcks.appliedBy(entry.id) >= revision) applied.push(entry.id)
        else pending.push(entry.id)
        if (!entry.attached) disconnected.push(entry.id)
      }
      return { applied, pending, disconnected }
    },
  }
}
