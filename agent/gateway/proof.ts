/**
 * Proof of the calling service between gateways.
 *
 * An egress knows which container calls (by its address on the bridge) and speaks for it: it sends a short-lived token, made
 * with the cluster's mesh secret, that names the calling service and is good for one target instance from one node. A later issue
 * replaces the shared secret by mutual TLS with node certificates, which also encrypts; until then whoever holds the mesh secret (every
 * joined node) can speak for any service, and traffic between nodes should run in a private network.
 *
 * Text: `v1.<base64url of JSON [caller, instance, node, expiry epoch ms]>.<base64url HMAC-SHA256>`. Caller '' vouches only
 * for the hop: the caller is somebody outside, but `X-Forwarded-*` are a gateway's own words.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import type { InstanceId, NodeId, ServiceId } from '../../shared/model/identity.ts'

export const PROOF_HEADER = 'x-rubato-proof'
/** Longest validity that a receiver accepts, with 30 s for clocks that differ. */
const MAX_LIFE_MS = 30_000
const MAX_SKEW_MS = 30_000
const MINT_LIFE_MS = 30_000
/** A minted proof is used again for this long. */
const REUSE_MS = 10_000
const MAX_REMEMBERED = 4_096

export interface ProofMinter {
  /** A proof that `caller` ('' for somebody outside) calls `instance`; null while no mesh secret is known. */
  mint(caller: ServiceId | '', instance: InstanceId, nowMs: number): string | null
}

/** Mints proofs in the name of `nodeId`; keeps them for a few seconds, for a token costs more than a request may. */
export function createProofMinter(nodeId: NodeId, secret: () => Uint8Array | null): ProofMinter {
  const minted = new Map<string, { readonly text: string; readonly atMs: number; readonly secret: Uint8Array }>()
  return {
    mint(caller, instance, nowMs) {
      const meshSecret = secret()
      if (meshSecret === null) return null
      const key = `${caller} ${instance}`
      const known = minted.get(key)
      if (known !== undefined && known.secret === meshSecret && nowMs >= known.atMs && nowMs - known.atMs < REUSE_MS)
        return known.text
      const payload = Buffer.from(JSON.stringify([caller, instance, nodeId, Math.floor(nowMs) + MINT_LIFE_MS])).toString(
        'base64url',
      )
      const text = `v1.${payload}.${mac(meshSecret, payload).toString('base64url')}`
      if (minted.size >= MAX_REMEMBERED) minted.clear()
      minted.set(key, { text, atMs: nowMs, secret: meshSecret })
      return text
    },
  }
}

export interface ProofChecker {
  /** The calling service ('' for somebody outside), or null when the proof is none, expired, or meant for another instance. */
  check(text: string, instance: InstanceId, nowMs: number): ServiceId | '' | null
}

export function createProofChecker(secret: () => Uint8Array | null): ProofChecker {
  const checked = new Map<string, { readonly caller: string; readonly instance: string; readonly expiresAtMs: number }>()
  let checkedWith: Uint8Array | null = null
  return {
    check(text, instance, nowMs) {
      const meshSecret = secret()
      if (meshSecret === null || text.length > 1_000) return null
      if (meshSecret !== checkedWith) {
        checked.clear()
        checkedWith = meshSecret
      }
      let proof = checked.get(text)
      if (proof === undefined) {
        const [version, payload, signature, ...rest] = text.split('.')
        if (version !== 'v1' || !payload || !signature || rest.length > 0) return null
        const given = Buffer.from(signature, 'base64url')
        const wanted = mac(meshSecret, payload)
        if (given.length !== wanted.length || !timingSafeEqual(given, wanted)) return null
        const parsed = readPayload(payload)
        if (parsed === null) return null
        proof = parsed
        if (checked.size >= MAX_REMEMBERED) checked.clear()
        checked.set(text, proof)
      }
      if (nowMs >= proof.expiresAtMs + MAX_SKEW_MS || proof.expiresAtMs - nowMs > MAX_LIFE_MS + MAX_SKEW_MS) {
        checked.delete(text)
        return null
      }
      return proof.instance === instance ? proof.caller : null
    },
  }
}

function mac(secret: Uint8Array, payload: string): Buffer {
  return createHmac('sha256', secret).update(`rubato-proof-v1.${payload}`).digest()
}

function readPayload(payload: string): { caller: string; instance: string; expiresAtMs: number } | null {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
  } catch {
    return null // signed by somebody with the secret, but not by this version
  }
  if (!Array.isArray(value)) return null
  const [caller, instance, node, expiresAtMs] = value as unknown[]
  if (typeof caller !== 'string' || typeof instance !== 'string' || typeof node !== 'string' || typeof expiresAtMs !== 'number')
    return null
  return { caller, instance, expiresAtMs }
}
