/**
 * The embedded catalog: what can be called right now, by service name. Derived, never stored: from the instances that agents
 * report and the labelled containers of others that they found. Every change raises one index, so that Consul's blocking
 * queries work as clients expect: an index never goes back while this coordinator lives, and starts above any earlier one's
 * (it begins at `startIndex`, from the epoch).
 *
 * Registration follows readiness and deregistration precedes the stop: an instance enters when it is ready and leaves as soon
 * as its goal is `stop` or its agent says draining. Cost of a change: the entries of the nodes that changed.
 */
import { compare } from '../../shared/compare.ts'
import { createIsolation, type Isolation } from '../state/isolation.ts'
import { isRoutable, type InstanceObservation, type Observed } from '../state/observed.ts'
import { specOfInstance } from '../services/kept-specs.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { State } from '../state/state.ts'
import type { Clock, Timer } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import { type NodeId, parseInstanceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import { instanceRegistrations } from '../../shared/instance-registrations.ts'

export interface CatalogEntry {
  readonly id: string
  readonly name: string
  readonly node: NodeId
  readonly nodeAddress: string
  readonly address: string
  readonly port: number
  readonly tags: readonly string[]
  readonly meta: Readonly<Record<string, string>>
  readonly status: 'passing' | 'critical'
  readonly note: string
  /** `app/service/slot/generation`, or null for a container that Rubato did not start. */
  readonly instance: string | null
  /** Index at which this entry last changed. */
  readonly index: number
}

export interface Catalog {
  /** Index of the newest change of anything. */
  readonly index: number
  /** Index of the newest change of that service (also its disappearance). */
  indexOf(service: string): number
  services(): ReadonlyMap<string, ReadonlySet<string>>
  /** Entries of a service, by id. */
  service(name: string): readonly CatalogEntry[]
  onNode(node: NodeId): readonly CatalogEntry[]
  nodes(): readonly NodeRecord[]
  /**
   * Resolves when the index of `service` (null: of anything) is above `after`, or after `waitMs`. null: too many wait already.
   */
  wait(service: string | null, after: number, waitMs: number, signal: AbortSignal): Promise<void> | null
  start(): void
  stop(): void
}

export interface CatalogDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  readonly startIndex: number
  /** Most blocking queries at once. Default 10,000: some hundred bytes each, and a socket. */
  readonly maxWaiters?: number
}

/** So many names that exist no more keep an index of their own; names of users' choice must not fill the memory. */
const MAX_GONE_NAMES = 10_000

interface Waiter {
  readonly service: string | null
  readonly after: number
  wake(): void
}

export function createCatalog(deps: CatalogDeps): Catalog {
  const { state, observed, clock } = deps
  const byNode = new Map<NodeId, Map<string, CatalogEntry>>()
  const byName = new Map<string, Map<string, CatalogEntry>>()
  const nameIndex = new Map<string, number>()
  const waiters = new Set<Waiter>()
  const unsubscribe: (() => void)[] = []
  const isolation = createIsolation({ state, clock, logger: deps.logger, part: 'catalog' })
  const maxWaiters = deps.maxWaiters ?? 10_000
  let index = deps.startIndex
  /** Index of names that were never seen, or were forgotten. */
  let otherIndex = deps.startIndex
  let listed: { readonly index: number; readonly services: ReadonlyMap<string, ReadonlySet<string>> } | null = null

  const indexOf = (service: string) => nameIndex.get(service) ?? otherIndex

  const refreshNode = (nodeId: NodeId) => {
    const wanted = entriesOf(nodeId, state, observed, isolation)
    const present = byNode.get(nodeId) ?? new Map<string, CatalogEntry>()
    const touched = new Set<string>()
    for (const [key, entry] of present)
      if (!wanted.has(key)) {
        present.delete(key)
        removeByName(entry)
        touched.add(entry.name)
      }
    for (const [key, entry] of wanted) {
      const before = present.get(key)
      if (before && sameEntry(before, entry)) continue
      if (before && before.name !== entry.name) {
        removeByName(before)
        touched.add(before.name)
      }
      const stamped = { ...entry, index: index + 1 }
      present.set(key, stamped)
      groupOf(byName, entry.name).set(key, stamped)
      touched.add(entry.name)
    }
    if (present.size > 0) byNode.set(nodeId, present)
    else byNode.delete(nodeId)
    if (touched.size === 0) return
    index += 1
    for (const name of touched) {
      nameIndex.delete(name) // the newest stand last
      nameIndex.set(name, index)
    }
    if (nameIndex.size > byName.size + MAX_GONE_NAMES) forgetNames()
    for (const waiter of [...waiters])
      if ((waiter.service === null ? index : indexOf(waiter.service)) > waiter.after) waiter.wake()
  }
  const forgetNames = () => {
    for (const [name, at] of nameIndex) {
      if (nameIndex.size <= byName.size + MAX_GONE_NAMES / 2) break
      if (byName.has(name)) continue
      nameIndex.delete(name)
      otherIndex = Math.max(otherIndex, at)
    }
  }
  const removeByName = (entry: CatalogEntry) => {
    const group = byName.get(entry.name)
    group?.delete(keyOf(entry))
    if (group?.size === 0) byName.delete(entry.name)
  }

  return {
    get index() {
      return index
    },
    indexOf,
    services() {
      if (listed?.index === index) return listed.services
      const result = new Map<string, Set<string>>()
      for (const [name, group] of byName) {
        const tags = new Set<string>()
        for (const entry of group.values()) for (const tag of entry.tags) tags.add(tag)
        result.set(name, tags)
      }
      listed = { index, services: result }
      return result
    },
    service: (name) => [...(byName.get(name)?.values() ?? [])].sort(byId),
    onNode: (node) => [...(byNode.get(node)?.values() ?? [])].sort(byId),
    nodes: () => [...state.snapshot.all('node').values()].sort((a, b) => compare(a.id, b.id)),
    wait(service, after, waitMs, signal) {
      const current = service === null ? index : indexOf(service)
      if (current > after || signal.aborted) return Promise.resolve()
      if (waiters.size >= maxWaiters) return null
      return new Promise((resolve) => {
        let timer: Timer | null = null
        const waiter: Waiter = {
          service,
          after,
          wake() {
            waiters.delete(waiter)
            timer?.cancel()
            signal.removeEventListener('abort', waiter.wake)
            resolve()
          },
        }
        timer = clock.setTimer(waitMs, waiter.wake)
        signal.addEventListener('abort', waiter.wake, { once: true })
        waiters.add(waiter)
      })
    },
    start() {
      for (const nodeId of state.snapshot.all('node').keys()) refreshNode(nodeId)
      unsubscribe.push(
        observed.onChange((change) => {
          if (change.useOnly) return
          const nodes = new Set(change.nodes)
          for (const id of change.instances) {
            const nodeId = observed.instance(id)?.nodeId ?? state.snapshot.instances().get(id)?.nodeId
            if (nodeId) nodes.add(nodeId)
          }
          for (const nodeId of nodes) refreshNode(nodeId)
        }),
        state.onChange((change) => {
          for (const { kind, key } of change.keys) if (kind === 'assignments' || kind === 'node') refreshNode(key)
        }),
      )
    },
    stop() {
      for (const end of unsubscribe.splice(0)) end()
      for (const waiter of [...waiters]) waiter.wake()
    },
  }
}

/** Key of an entry on its node: two containers may carry the same registration id only by mistake; the later one wins. */
function keyOf(entry: Pick<CatalogEntry, 'node' | 'id'>): string {
  return `${entry.node}\n${entry.id}`
}

function entriesOf(nodeId: NodeId, state: State, observed: Observed, isolation: Isolation): Map<string, CatalogEntry> {
  const entries = new Map<string, CatalogEntry>()
  const node = state.snapshot.get('node', nodeId)
  if (!node) return entries
  const observation = observed.node(nodeId)
  for (const record of state.snapshot.get('assignments', nodeId)?.instances ?? []) {
    const instance = observed.instance(record.id)
    if (record.goal !== 'run' || instance?.phase !== 'ready' || instance.nodeId !== nodeId) continue
    const passing = isRoutable(instance, observation)
    const own = isolation.attempt(serviceIdOf(record.id), () => {
      const unit = unitOf(state, record)
      return unit === null ? [] : instanceEntries(node, instance, unit, passing)
    })
    for (const entry of own ?? []) entries.set(keyOf(entry), entry)
  }
  for (const foreign of observation?.foreign ?? []) {
    const passing = foreign.passing && observation?.liveness !== 'lost'
    const entry: CatalogEntry = {
      id: foreign.id,
      name: foreign.name,
      node: nodeId,
      nodeAddress: node.address,
      address: foreign.address,
      port: foreign.port,
      tags: foreign.tags,
      meta: foreign.meta,
      status: passing ? 'passing' : 'critical',
      note: '',
      instance: null,
      index: 0,
    }
    entries.set(keyOf(entry), entry)
  }
  return entries
}

/** Entries of one instance. */
function instanceEntries(
  node: NodeRecord,
  instance: InstanceObservation,
  unit: UnitSpec,
  passing: boolean,
): readonly CatalogEntry[] {
  return instanceRegistrations(instance, unit, node).map((registration) => ({
    ...registration,
    node: node.id,
    nodeAddress: node.address,
    status: passing ? 'passing' : 'critical',
    note: instance.message,
    instance: instance.instance,
    index: 0,
  }))
}

/** Labels of what the record runs; where that is kept no more, those of the present revision. */
function unitOf(state: State, record: InstanceRecord): UnitSpec | null {
  const identity = parseInstanceId(record.id)
  const app = identity ? state.snapshot.get('app', identity.app) : undefined
  if (!identity || !app) return null
  return (specOfInstance(app, record) ?? app.spec.services.find(({ name }) => name === identity.service))?.unit ?? null
}

function sameEntry(a: CatalogEntry, b: CatalogEntry): boolean {
  return JSON.stringify({ ...a, index: 0 }) === JSON.stringify({ ...b, index: 0 })
}

function groupOf(map: Map<string, Map<string, CatalogEntry>>, name: string): Map<string, CatalogEntry> {
  let group = map.get(name)
  if (!group) {
    group = new Map()
    map.set(name, group)
  }
  return group
}

function byId(a: CatalogEntry, b: CatalogEntry): number {
  return compare(a.id, b.id) || compare(a.node, b.node)
}
