/**
 * What fits into one commit (store.ts), counted as the stores count it. A loop measures each part of a change before it puts it, and
 * begins another commit when the next does not fit: a commit that is too large fails whole, and would fail again for ever.
 */
import type { InstanceRecord } from './objects.ts'
import { MAX_COMMIT_BYTES, MAX_COMMIT_OPERATIONS } from './store.ts'

export interface CommitRoom {
  /** Takes so many objects, with so many bytes of JSON in them and in their events, if they fit beside what was taken. */
  take(objects: number, bytes: number): boolean
}

export function commitRoom(): CommitRoom {
  let objects = 0
  let bytes = 0
  return {
    take(moreObjects, moreBytes) {
      if (objects + moreObjects > MAX_COMMIT_OPERATIONS || bytes + moreBytes > MAX_COMMIT_BYTES) return false
      objects += moreObjects
      bytes += moreBytes
      return true
    },
  }
}

export function jsonBytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value) ?? '')
}

/**
 * Instances move from the record of their service into that of their node in one commit, so both must fit into one, with events and
 * what else a service's record holds (homes, generations, completions). Of a service's record waiting instances have the first, of a
 * node's record its instances the second, with what they grow by when all are told to stop.
 */
const WAITING_BYTES = 100_000
const NODE_BYTES = 200_000
/** What a record of an instance has besides its names: keys, numbers, a hash, its part of a job; and the reason to stop that it may get. */
const PLAIN_BYTES = 330
export const STOP_BYTES = 150
/** Names of an instance that comes: its own, the one that it replaces, who chose its node. */
const USUAL_NAMES = 300

/** For how many more instances there is room in the record of a node that holds these: about 400 in all, 250 with the longest names. */
export function roomOnNode(instances: readonly InstanceRecord[]): number {
  let bytes = 0
  let longest = USUAL_NAMES
  for (const { id, replaces, placedBy } of instances) {
    const names = id.length + (replaces?.length ?? 0) + (placedBy?.length ?? 0)
    bytes += PLAIN_BYTES + STOP_BYTES + names
    longest = Math.max(longest, names)
  }
  return Math.max(0, Math.floor((NODE_BYTES - bytes) / (PLAIN_BYTES + STOP_BYTES + longest)))
}

/** Most instances of a service that wait for a place at once: some 280, half as many with the longest names. */
export function mostWaiting(serviceId: string): number {
  return Math.floor(WAITING_BYTES / (PLAIN_BYTES + 2 * (serviceId.length + '/1000/100'.length)))
}
