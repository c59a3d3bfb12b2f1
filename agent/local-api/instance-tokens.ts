/** Tokens by which processes (that have no address of their own) prove which instance they are to the local API. Only hashes are kept. */
import { hashSecret } from '../../shared/credentials.ts'
import { base62Secret } from '../../shared/ids.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { Random } from '../../shared/random.ts'

export interface InstanceTokens {
  /** A fresh token; earlier ones of the instance stay good, for its process may outlive this agent's next start. */
  issue(instance: InstanceId): string
  /** The instance of a token, or null. */
  instanceOf(token: string): InstanceId | null
  forget(instance: InstanceId): void
  /** What to keep on disk so that tokens survive the agent: hashes by instance, no secrets. */
  snapshot(): Readonly<Record<InstanceId, readonly string[]>>
}

const MAX_PER_INSTANCE = 8

export function createInstanceTokens(random: Random, kept: Readonly<Record<InstanceId, readonly string[]>> = {}): InstanceTokens {
  const hashes = new Map<InstanceId, string[]>()
  const instances = new Map<string, InstanceId>()
  for (const [instance, list] of Object.entries(kept)) {
    hashes.set(instance, [...list])
    for (const hash of list) instances.set(hash, instance)
  }
  return {
    issue(instance) {
      const token = base62Secret(random)
      const hash = hashSecret(token)
      const list = hashes.get(instance) ?? []
      list.push(hash)
      for (const old of list.splice(0, Math.max(0, list.length - MAX_PER_INSTANCE))) instances.delete(old)
      hashes.set(instance, list)
      instances.set(hash, instance)
      return token
    },
    // Looked up by hash: how long that takes tells nothing about any token.
    instanceOf: (token) => (token.length > 100 ? null : (instances.get(hashSecret(token)) ?? null)),
    forget(instance) {
      for (const hash of hashes.get(instance) ?? []) instances.delete(hash)
      hashes.delete(instance)
    },
    snapshot: () => Object.fromEntries([...hashes].map(([instance, list]) => [instance, [...list]])),
  }
}
