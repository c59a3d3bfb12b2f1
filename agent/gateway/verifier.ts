/** Checks presented credentials against the key ring, and finds them in request headers. */
import { hash } from 'node:crypto'
import { parseCredential, secretMatches } from '../../shared/credentials.ts'
import type { PushedKey } from '../../shared/model/access.ts'
import type { KeyRing } from './key-ring.ts'

/** Verified credentials that are remembered; an attacker cannot fill it, for only good ones enter. */
const MAX_REMEMBERED = 4_096
/** Compared against when the key is unknown, so that unknown and wrong take the same time. */
const DUMMY_HASH = '0'.repeat(64)

export type CredentialVerifier = (credential: string, nowMs: number) => PushedKey | null

/**
 * A verifier over the live key ring. Remembers by SHA-256 of the whole text which key it proved; the key itself is looked up in
 * the ring each time, so a revoked, replaced or expired key stops working with the ring's next state.
 */
export function createVerifier(keys: KeyRing): CredentialVerifier {
  const proved = new Map<string, { readonly id: string; readonly secretHash: string }>()
  return (credential, nowMs) => {
    if (credential.length > 300) return null
    const digest = hash('sha256', credential, 'base64')
    const known = proved.get(digest)
    if (known !== undefined) {
      const key = keys.key(known.id)
      if (key !== undefined && key.secretHash === known.secretHash) return isLive(key, nowMs) ? key : null
      proved.delete(digest)
    }
    const parsed = parseCredential('rbt', credential)
    if (parsed === null) return null
    const key = keys.key(parsed.id)
    const matches = secretMatches(parsed.secret, key?.secretHash ?? DUMMY_HASH)
    if (!matches || key === undefined || !isLive(key, nowMs)) return null
    if (proved.size >= MAX_REMEMBERED) proved.clear()
    proved.set(digest, { id: key.id, secretHash: key.secretHash })
    return key
  }
}

function isLive(key: PushedKey, nowMs: number): boolean {
  return key.expiresAtMs === null || nowMs < key.expiresAtMs
}

const BEARER = /^bearer[ \t]+(rbt[a-z]?_\S*)$/i
const OURS = /^rbt[a-z]?_/

/** What the credential headers of a request say. */
export interface PresentedCredential {
  /** Text of the Rubato credential; null when there is none. */
  readonly credential: string | null
  /** Two different ones. */
  readonly ambiguous: boolean
  /** The `Authorization` value to pass on: null when absent or ours (a key never goes upstream). */
  readonly authorization: string | null
  /** The same of `X-API-Key`. */
  readonly apiKey: string | null
}

const NOTHING: PresentedCredential = { credential: null, ambiguous: false, authorization: null, apiKey: null }

/** Tells Rubato's credentials from those that are the application's own business. */
export function presentedCredential(authorization: string | null, apiKey: string | null): PresentedCredential {
  if (authorization === null && apiKey === null) return NOTHING
  const bearer = authorization === null ? null : (BEARER.exec(authorization)?.[1] ?? null)
  const header = apiKey !== null && OURS.test(apiKey) ? apiKey : null
  return {
    credential: bearer ?? header,
    ambiguous: bearer !== null && header !== null && bearer !== header,
    authorization: bearer === null ? authorization : null,
    apiKey: header === null ? apiKey : null,
  }
}
