/** A key ring that a test fills and changes. */
import type { KeyRing } from '../../agent/gateway/key-ring.ts'
import { newCredential } from '../../shared/credentials.ts'
import type { PushedKey } from '../../shared/model/access.ts'
import type { AccessPolicy } from '../../shared/model/unit.ts'
import { seededRandom } from '../../shared/random.ts'

export interface FakeKeyRing extends KeyRing {
  readonly keys: Map<string, PushedKey>
  readonly policies: Map<string, AccessPolicy>
  meshSecret: Uint8Array | null
  confirmedAtMs: number | null
  revision: number
  /** Adds a key and returns the text of its credential. */
  issue(id: string, fields?: Partial<PushedKey>): string
}

export function fakeKeyRing(confirmedAtMs: number | null): FakeKeyRing {
  const random = seededRandom(7)
  const keys = new Map<string, PushedKey>()
  const policies = new Map<string, AccessPolicy>()
  const ring: FakeKeyRing = {
    keys,
    policies,
    key: (id) => keys.get(id),
    policy: (service) => policies.get(service),
    meshSecret: Buffer.from('mesh-secret-of-the-test-cluster!'),
    confirmedAtMs,
    revision: 1,
    issue(id, fields = {}) {
      const { text, secretHash } = newCredential('rbt', id, random)
      keys.set(id, { id, name: id, roles: [], secretHash, expiresAtMs: null, ...fields })
      ring.revision += 1
      return text
    },
  }
  return ring
}
