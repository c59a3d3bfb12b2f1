/**
 * Who may call a service. Pure: the key ring's answers and the time are arguments. Fails closed: what is unknown, expired,
 * revoked or mistyped gets one and the same 401, and a key set that nobody confirmed for too long gets 503.
 */
import type { PushedKey } from '../../shared/model/access.ts'
import type { ServiceId } from '../../shared/model/identity.ts'
import type { AccessPolicy } from '../../shared/model/unit.ts'

export interface RequestFacts {
  readonly method: string
  /** Checked path without query. */
  readonly path: string
  /** Text of an `rbt_…` credential; null when none was presented. */
  readonly credential: string | null
  /** Service whose instance makes the call, where its node vouches for it; null otherwise. */
  readonly callerService: ServiceId | null
  /** The service that is called. */
  readonly service: ServiceId
}

export interface RingFacts {
  /** The live, unexpired key of a credential, or null. */
  verify(credential: string, nowMs: number): PushedKey | null
  /** Epoch ms when the coordinator last confirmed keys and policies; null: never. */
  readonly confirmedAtMs: number | null
}

export type Authorization =
  /** `caller`: key name or `app/service`; null for an anonymous caller of a public service. */
  | { readonly allow: true; readonly caller: string | null }
  | { readonly allow: false; readonly status: 401 | 403 | 503; readonly code: string; readonly detail: string }

const UNAUTHENTICATED: Authorization = {
  allow: false,
  status: 401,
  code: 'unauthorized',
  detail: 'A valid key is needed: Authorization: Bearer rbt_... or X-API-Key.',
}
const FORBIDDEN: Authorization = {
  allow: false,
  status: 403,
  code: 'forbidden',
  detail: 'This caller may not call this service.',
}
const METHOD: Authorization = { allow: false, status: 403, code: 'method-forbidden', detail: 'This method is not allowed here.' }
const PATH: Authorization = { allow: false, status: 403, code: 'path-forbidden', detail: 'This path is not allowed here.' }
const STALE: Authorization = {
  allow: false,
  status: 503,
  code: 'keyset-stale',
  detail: 'The keys of this node were not confirmed for too long.',
}

/** Decides one request. `policy` undefined (none pushed) refuses with 503. `staleAfterMs`: how long a key set counts unconfirmed. */
export function authorize(
  facts: RequestFacts,
  policy: AccessPolicy | undefined,
  ring: RingFacts,
  nowMs: number,
  staleAfterMs: number,
): Authorization {
  if (policy === undefined) return STALE
  let caller: string | null = null
  if (policy.public) {
    // A valid key still names its holder; a bad one does not matter where none is needed.
    if (facts.credential !== null && !isStale(ring, nowMs, staleAfterMs))
      caller = ring.verify(facts.credential, nowMs)?.name ?? null
    caller ??= facts.callerService
  } else {
    if (isStale(ring, nowMs, staleAfterMs)) return STALE
    if (facts.credential !== null) {
      const key = ring.verify(facts.credential, nowMs)
      if (key === null) return UNAUTHENTICATED
      if (!keyMayCall(key, policy)) return FORBIDDEN
      caller = key.name
    } else if (facts.callerService !== null) {
      if (!serviceMayCall(facts.callerService, facts.service, policy)) return FORBIDDEN
      caller = facts.callerService
    } else return UNAUTHENTICATED
  }
  if (policy.methods.length > 0 && !policy.methods.includes(facts.method)) return METHOD
  if (policy.pathPrefixes.length > 0 && !policy.pathPrefixes.some((prefix) => isUnder(facts.path, prefix))) return PATH
  return { allow: true, caller }
}

/** Whether a connection without HTTP may be made; only services and the public have a way to say who they are. */
export function authorizeConnection(
  facts: { readonly callerService: ServiceId | null; readonly service: ServiceId },
  policy: AccessPolicy | undefined,
  confirmedAtMs: number | null,
  nowMs: number,
  staleAfterMs: number,
): boolean {
  if (policy === undefined) return false
  if (policy.public) return true
  if (confirmedAtMs === null || nowMs - confirmedAtMs > staleAfterMs) return false
  return facts.callerService !== null && serviceMayCall(facts.callerService, facts.service, policy)
}

/** Whether `path` is `prefix` or lies below it: `/api` admits `/api` and `/api/x`, never `/apix`. */
export function isUnder(path: string, prefix: string): boolean {
  if (!path.startsWith(prefix)) return false
  return path.length === prefix.length || prefix.endsWith('/') || path.charCodeAt(prefix.length) === 47
}

function isStale(ring: RingFacts, nowMs: number, staleAfterMs: number): boolean {
  return ring.confirmedAtMs === null || nowMs - ring.confirmedAtMs > staleAfterMs
}

function keyMayCall(key: PushedKey, policy: AccessPolicy): boolean {
  return policy.anyKey || policy.allow.includes(key.name) || key.roles.some((role) => policy.roles.includes(role))
}

function serviceMayCall(caller: ServiceId, service: ServiceId, policy: AccessPolicy): boolean {
  if (policy.allow.includes(caller)) return true
  return policy.sameApp && caller.slice(0, caller.indexOf('/') + 1) === service.slice(0, service.indexOf('/') + 1)
}
