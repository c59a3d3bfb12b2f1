/** The node's keys and policies as the gateway reads them: one object for the agent's life, whose content the link replaces. */
import type { PushedKey } from '../../shared/model/access.ts'
import type { AccessPolicy } from '../../shared/model/unit.ts'
import type { ServicePolicy } from '../../shared/protocol/frames.ts'
import type { KeyRing } from '../gateway/key-ring.ts'

export interface KeySet {
  readonly keys: readonly PushedKey[]
  readonly policies: readonly ServicePolicy[]
  /** base64; null before the first full set. */
  readonly meshSecret: string | null
}

export const EMPTY_KEY_SET: KeySet = { keys: [], policies: [], meshSecret: null }

export interface WritableKeyRing {
  readonly ring: KeyRing
  /** Takes the whole set over at once: a reader sees the old or the new one, never a mixture. */
  replace(set: KeySet, revision: number): void
  /** The coordinator confirmed the set at this time (epoch ms). */
  confirm(atMs: number): void
}

export function createKeyRing(): WritableKeyRing {
  let keys: ReadonlyMap<string, PushedKey> = new Map()
  let policies: ReadonlyMap<string, AccessPolicy> = new Map()
  let meshSecret: Uint8Array | null = null
  let confirmedAtMs: number | null = null
  let revision = 0
  return {
    ring: {
      key: (id) => keys.get(id),
      policy: (service) => policies.get(service),
      get meshSecret() {
        return meshSecret
      },
      get confirmedAtMs() {
        return confirmedAtMs
      },
      get revision() {
        return revision
      },
    },
    replace(set, nextRevision) {
      keys = new Map(set.keys.map((key) => [key.id, key]))
      policies = new Map(set.policies.map((policy) => [policy.service, policy.access]))
      meshSecret = set.meshSecret === null ? null : Buffer.from(set.meshSecret, 'base64')
      revision = nextRevision
    },
    confirm(atMs) {
      confirmedAtMs = atMs
    },
  }
}
