/** What an HTTP connection of the gateway asks of whoever decides, and what all connections share. */
import type { Refusal, RequestHead } from './http-head.ts'
import type { Track } from './track.ts'
import type { UpstreamPool } from './upstream-pool.ts'

/** Where an allowed request goes. */
export interface Forward {
  readonly kind: 'forward'
  readonly address: string
  readonly port: number
  /** Header lines that the gateway adds, each ending in CRLF; they go last. */
  readonly addedLines: string
  /** Counters of this exchange. */
  readonly tracks: readonly Track[]
  /** Another place for the same request, after this one could not be reached. */
  retry(): Forward | Refusal
}

export interface HttpHandler {
  /** Decides one request; must not throw. */
  decide(head: RequestHead, peerAddress: string): Forward | Refusal
  /** No further requests on connections of this listener: those open are told to close. */
  readonly closing: boolean
}

export interface FrontLimits {
  readonly headTimeoutMs: number
  readonly keepAliveMs: number
  readonly connectTimeoutMs: number
  readonly responseTimeoutMs: number
  readonly idleTimeoutMs: number
  /** How long an idle connection to an upstream is kept. */
  readonly upstreamKeepMs: number
}

export const DEFAULT_LIMITS: FrontLimits = {
  headTimeoutMs: 30_000,
  keepAliveMs: 65_000,
  connectTimeoutMs: 3_000,
  responseTimeoutMs: 60_000,
  idleTimeoutMs: 600_000,
  upstreamKeepMs: 4_000,
}

/** What all connections of a gateway share. */
export interface FrontShared {
  readonly pool: UpstreamPool
  readonly limits: FrontLimits
  /** Monotonic ms, renewed by every sweep: cheap enough for each chunk. */
  coarseMs: number
  /** Monotonic ms, exact. */
  nowMs(): number
}

/** A connection as its listener and the sweeper see it. */
export interface FrontConnection {
  /** Closes what waited too long. */
  sweep(nowMs: number): void
  /** Ends it after the exchange under way. */
  drain(): void
  destroy(): void
}

/** An IPv4 address without the prefix of its IPv6 form. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') ? address.slice(7) : address
}
