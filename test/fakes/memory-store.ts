/** A store in memory with the same promises as sqlite's; survives a "crash" of its coordinator when reopened. */
import type { EventRecord } from '../../shared/model/event.ts'
import type { CommitOutcome, EventQuery, LoadedObject, Store, StoreOperation } from '../../coordinator/state/store.ts'
import { MAX_COMMIT_BYTES, MAX_COMMIT_OPERATIONS } from '../../coordinator/state/store.ts'

export interface MemoryStoreDisk {
  readonly objects: Map<string, LoadedObject>
  readonly events: EventRecord[]
  epoch: number
  nextVersion: number
}

export function emptyDisk(): MemoryStoreDisk {
  return { objects: new Map(), events: [], epoch: 0, nextVersion: 1 }
}

export interface MemoryStore extends Store {
  /** Failure lever: the next commits answer this instead. */
  failNext(outcome: CommitOutcome, times?: number): void
}

export function memoryStore(disk: MemoryStoreDisk = emptyDisk()): MemoryStore {
  const failures: CommitOutcome[] = []
  return {
    failNext(outcome, times = 1) {
      for (let i = 0; i < times; i += 1) failures.push(outcome)
    },
    async load() {
      disk.epoch += 1
      return { epoch: disk.epoch, objects: [...disk.objects.values()], lastEventSeq: disk.events.at(-1)?.seq ?? 0 }
    },
    async commit(operations, { epoch, events, atMs }) {
      const failure = failures.shift()
      if (failure) return failure
      if (epoch < disk.epoch) return { kind: 'notLeader', detail: `epoch ${epoch} is older than ${disk.epoch}` }
      if (operations.length > MAX_COMMIT_OPERATIONS) return { kind: 'tooLarge', detail: `${operations.length} operations` }
      const bytes = [...operations.flatMap((one) => (one.op === 'put' ? [one.value] : [])), ...events].reduce<number>(
        (sum, value) => sum + Buffer.byteLength(JSON.stringify(value) ?? 'null'),
        0,
      )
      if (bytes > MAX_COMMIT_BYTES) return { kind: 'tooLarge', detail: `${bytes} bytes` }
      for (const operation of operations) {
        const version = disk.objects.get(keyOf(operation))?.version ?? 0
        if (version !== operation.expect)
          return { kind: 'conflict', detail: `${keyOf(operation)} has version ${version}, expected ${operation.expect}` }
      }
      const versions = operations.map((operation) => {
        if (operation.op === 'delete') {
          disk.objects.delete(keyOf(operation))
          return 0
        }
        const version = disk.nextVersion++
        disk.objects.set(keyOf(operation), {
          kind: operation.kind,
          key: operation.key,
          version,
          value: structuredClone(operation.value),
        })
        return version
      })
      const records = events.map(
        (draft, index): EventRecord => ({ ...draft, seq: (disk.events.at(-1)?.seq ?? 0) + 1 + index, atMs }),
      )
      disk.events.push(...records)
      return { kind: 'committed', versions, events: records }
    },
    async events(query: EventQuery) {
      const limit = Math.min(query.limit ?? 100, 1000)
      const found = disk.events.filter(
        (event) =>
          event.seq > (query.afterSeq ?? 0) &&
          (query.subjectPrefix === undefined || event.subject.startsWith(query.subjectPrefix)) &&
          (query.type === undefined || event.type === query.type),
      )
      return query.afterSeq === undefined ? found.slice(-limit) : found.slice(0, limit)
    },
    async close() {},
  }
}

function keyOf(operation: StoreOperation): string {
  return `${operation.kind}\n${operation.key}`
}
