/**
 * Contract of the durable store (design §10). Implementations: sqlite (embedded), later Consul KV, and a fake for tests;
 * test/contracts/store-contract.ts holds them to the same promises.
 */
import type { EventDraft, EventRecord } from '../../shared/model/event.ts'
import type { Kind } from './objects.ts'

/** Limits of one commit, the smallest of any implementation (Consul's, with headroom for base64). */
export const MAX_COMMIT_OPERATIONS = 60
export const MAX_COMMIT_BYTES = 350_000

export type StoreOperation =
  /** Writes the object if its version is still `expect` (0: it must not exist). */
  | { readonly op: 'put'; readonly kind: Kind; readonly key: string; readonly value: unknown; readonly expect: number }
  | { readonly op: 'delete'; readonly kind: Kind; readonly key: string; readonly expect: number }

export type CommitOutcome =
  /** Durable. Versions of the objects put, in the order of the operations; deletes give 0. */
  | { readonly kind: 'committed'; readonly versions: readonly number[]; readonly events: readonly EventRecord[] }
  /** Some version was not the expected one; nothing was written. */
  | { readonly kind: 'conflict'; readonly detail: string }
  /** Another coordinator leads with a higher epoch; nothing was written. */
  | { readonly kind: 'notLeader'; readonly detail: string }
  /** Outcome unknown to us or nothing written (disk full: `full`; store away); the caller must not act. */
  | { readonly kind: 'unavailable'; readonly detail: string; readonly full?: true }
  | { readonly kind: 'tooLarge'; readonly detail: string }

export interface LoadedObject {
  readonly kind: Kind
  readonly key: string
  readonly version: number
  readonly value: unknown
}

export interface EventQuery {
  /** Only events with a larger sequence number. Default 0. */
  readonly afterSeq?: number
  /** Newest last; at most this many, the newest ones when `afterSeq` is absent. Default 100, at most 1000. */
  readonly limit?: number
  readonly subjectPrefix?: string
  readonly type?: string
}

export interface Store {
  /** Everything kept, and the epoch that this opening raised: larger than any before. */
  load(): Promise<{ readonly epoch: number; readonly objects: readonly LoadedObject[]; readonly lastEventSeq: number }>
  /** Atomic. Events are appended in the same transaction, stamped `atMs`. Never rejects for an expected outcome. */
  commit(
    operations: readonly StoreOperation[],
    options: { readonly epoch: number; readonly events: readonly EventDraft[]; readonly atMs: number },
  ): Promise<CommitOutcome>
  events(query: EventQuery): Promise<readonly EventRecord[]>
  close(): Promise<void>
}
