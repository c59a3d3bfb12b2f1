/**
 * The one writer: an in-memory snapshot in front of the store. Readers see only what is durable. Loops read `snapshot`, plan,
 * and `commit`; a commit names the version of each object that it read, so two loops that touched the same object cannot
 * overwrite each other: the loser gets `conflict` and plans again.
 */
import { InvariantError } from '../../shared/errors.ts'
import type { Clock } from '../../shared/clock.ts'
import type { EventDraft, EventRecord } from '../../shared/model/event.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import { type InstanceRecord, KINDS, type Kind, type ObjectTypes } from './objects.ts'
import type { CommitOutcome, EventQuery, Store, StoreOperation } from './store.ts'

export type Collection<K extends Kind> = ReadonlyMap<string, ObjectTypes[K]>

export interface Snapshot {
  /** Raised with every commit; equal revisions mean equal snapshots. */
  readonly revision: number
  all<K extends Kind>(kind: K): Collection<K>
  get<K extends Kind>(kind: K, key: string): ObjectTypes[K] | undefined
  /** Every instance, placed or waiting. */
  instances(): ReadonlyMap<InstanceId, InstanceRecord>
  /** Instances of one service, in no promised order. */
  instancesOf(serviceId: string): readonly InstanceRecord[]
}

/** One atomic change. Made by `change()`; `put` takes the new value, the version is the snapshot's. */
export interface Change {
  put<K extends Kind>(kind: K, key: string, value: ObjectTypes[K]): Change
  delete(kind: Kind, key: string): Change
  event(draft: EventDraft): Change
  readonly isEmpty: boolean
}

export interface StateChange {
  readonly kinds: ReadonlySet<Kind>
  readonly keys: readonly { readonly kind: Kind; readonly key: string }[]
  readonly events: readonly EventRecord[]
}

export interface State {
  readonly epoch: number
  readonly snapshot: Snapshot
  /** Starts a change against the present snapshot's versions. */
  change(): Change
  /** Durable when it resolves `committed`; only then may anyone act on it. Several commits may be under way. */
  commit(change: Change): Promise<CommitOutcome>
  events(query: EventQuery): Promise<readonly EventRecord[]>
  /** Called after each commit, in commit order; returns the unsubscriber. */
  onChange(listener: (change: StateChange) => void): () => void
}

interface Entry {
  readonly value: unknown
  readonly version: number
}

/** Loads everything from the store. The returned state is the only one that may write to it. */
export async function openState(store: Store, clock: Clock): Promise<State> {
  const loaded = await store.load()
  const maps = new Map<Kind, Map<string, Entry>>(KINDS.map((kind) => [kind, new Map()]))
  for (const object of loaded.objects) mapOf(maps, object.kind).set(object.key, { value: object.value, version: object.version })
  const view = new View(maps)
  const listeners = new Set<(change: StateChange) => void>()

  return {
    epoch: loaded.epoch,
    snapshot: view,
    change: () => new Draft(maps),
    async commit(change) {
      const draft = change as Draft
      if (draft.isEmpty) return { kind: 'committed', versions: [], events: [] }
      const operations = [...draft.operations.values()]
      const outcome = await store.commit(operations, { epoch: loaded.epoch, events: draft.events, atMs: clock.now() })
      if (outcome.kind !== 'committed') return outcome
      operations.forEach((operation, index) => {
        if (operation.op === 'delete') view.apply(operation.kind, operation.key, null)
        else view.apply(operation.kind, operation.key, { value: operation.value, version: outcome.versions[index] ?? 0 })
      })
      view.revision += 1
      const notice: StateChange = {
        kinds: new Set(operations.map((operation) => operation.kind)),
        keys: operations.map(({ kind, key }) => ({ kind, key })),
        events: outcome.events,
      }
      for (const listener of [...listeners]) listener(notice)
      return outcome
    },
    events: (query) => store.events(query),
    onChange(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
  }
}

function mapOf(maps: Map<Kind, Map<string, Entry>>, kind: Kind): Map<string, Entry> {
  const map = maps.get(kind)
  if (!map) throw new InvariantError(`the store holds an object of unknown kind ${kind}`)
  return map
}

class Draft implements Change {
  readonly operations = new Map<string, StoreOperation>()
  readonly events: EventDraft[] = []
  readonly #maps: Map<Kind, Map<string, Entry>>
  constructor(maps: Map<Kind, Map<string, Entry>>) {
    this.#maps = maps
  }
  get isEmpty(): boolean {
    return this.operations.size === 0 && this.events.length === 0
  }
  put<K extends Kind>(kind: K, key: string, value: ObjectTypes[K]): Change {
    this.operations.set(`${kind}\n${key}`, { op: 'put', kind, key, value, expect: this.#expect(kind, key) })
    return this
  }
  delete(kind: Kind, key: string): Change {
    const expect = this.#expect(kind, key)
    if (expect === 0) this.operations.delete(`${kind}\n${key}`)
    else this.operations.set(`${kind}\n${key}`, { op: 'delete', kind, key, expect })
    return this
  }
  event(draft: EventDraft): Change {
    this.events.push(draft)
    return this
  }
  /** The version first seen by this draft, so that a commit by someone else in between is a conflict. */
  #expect(kind: Kind, key: string): number {
    const earlier = this.operations.get(`${kind}\n${key}`)
    return earlier?.expect ?? mapOf(this.#maps, kind).get(key)?.version ?? 0
  }
}

class View implements Snapshot {
  revision = 1
  readonly #maps: Map<Kind, Map<string, Entry>>
  readonly #values = new Map<Kind, Map<string, unknown>>()
  readonly #instances = new Map<InstanceId, InstanceRecord>()
  readonly #byService = new Map<string, Map<InstanceId, InstanceRecord>>()
  constructor(maps: Map<Kind, Map<string, Entry>>) {
    this.#maps = maps
    for (const [kind, map] of maps) {
      this.#values.set(kind, new Map([...map].map(([key, entry]) => [key, entry.value])))
      for (const entry of map.values()) for (const record of instancesIn(kind, entry.value)) this.#index(record)
    }
  }
  all<K extends Kind>(kind: K): Collection<K> {
    return this.#values.get(kind) as unknown as Collection<K>
  }
  get<K extends Kind>(kind: K, key: string): ObjectTypes[K] | undefined {
    return this.#values.get(kind)?.get(key) as ObjectTypes[K] | undefined
  }
  instances(): ReadonlyMap<InstanceId, InstanceRecord> {
    return this.#instances
  }
  instancesOf(serviceId: string): readonly InstanceRecord[] {
    return [...(this.#byService.get(serviceId)?.values() ?? [])]
  }
  apply(kind: Kind, key: string, entry: Entry | null): void {
    const map = mapOf(this.#maps, kind)
    const before = map.get(key)
    // Remove only records that this very object brought in: a move between two objects may arrive in either order.
    if (before)
      for (const record of instancesIn(kind, before.value)) if (this.#instances.get(record.id) === record) this.#unindex(record)
    if (entry === null) {
      map.delete(key)
      this.#values.get(kind)?.delete(key)
      return
    }
    map.set(key, entry)
    this.#values.get(kind)?.set(key, entry.value)
    for (const record of instancesIn(kind, entry.value)) this.#index(record)
  }
  #index(record: InstanceRecord): void {
    this.#instances.set(record.id, record)
    const service = serviceOf(record.id)
    let group = this.#byService.get(service)
    if (!group) {
      group = new Map()
      this.#byService.set(service, group)
    }
    group.set(record.id, record)
  }
  #unindex(record: InstanceRecord): void {
    this.#instances.delete(record.id)
    const service = serviceOf(record.id)
    const group = this.#byService.get(service)
    group?.delete(record.id)
    if (group?.size === 0) this.#byService.delete(service)
  }
}

function instancesIn(kind: Kind, value: unknown): readonly InstanceRecord[] {
  if (kind === 'assignments') return (value as ObjectTypes['assignments']).instances
  if (kind === 'service') return (value as ObjectTypes['service']).pending
  return []
}

function serviceOf(id: InstanceId): string {
  return id.slice(0, id.indexOf('/', id.indexOf('/') + 1))
}
