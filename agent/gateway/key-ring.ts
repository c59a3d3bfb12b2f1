/**
 * Keys and policies that this node holds, pushed by the coordinator; read by the gateway at every request. Revisions never go
 * backwards (I13).
 */
import type { PushedKey } from '../../shared/model/access.ts'
import type { AccessPolicy } from '../../shared/model/unit.ts'

export interface KeyRing {
  key(id: string): PushedKey | undefined
  policy(service: string): AccessPolicy | undefined
  /** Secret for proofs between gateways; null before the first key set came. */
  readonly meshSecret: Uint8Array | null
  /** Epoch ms by the node's clock when the coordinator last confirmed the set; null: never. */
  readonly confirmedAtMs: number | null
  readonly revision: number
}
