/**
 * When the fleet acts: what has waited long enough to buy for, when it is next asked whether a machine can go, and what stands
 * against giving any back (against one of them: plan-holds.ts). The coordinator's loop and the simulator decide by these very functions.
 * No clock of their own.
 */
import type { FleetConfig } from './config.ts'

/** Buys, or takes back, only for what has fitted nowhere for `buyHoldMs`: what is on the move often fits a moment later. */
export interface BuyHold<Id> {
  /**
   * Which of those that fit nowhere now have done so for long enough; `youngMs`: until the next one is, null when none is younger.
   * `atMs` must not decrease.
   */
  lasting(refused: readonly Id[], atMs: number): { readonly lasting: ReadonlySet<Id>; readonly youngMs: number | null }
  /** Room has just been made: whoever fits nowhere then begins anew. */
  forget(): void
}

export function createBuyHold<Id>(buyHoldMs: number): BuyHold<Id> {
  const sinceMs = new Map<Id, number>()
  return {
    lasting(refused, atMs) {
      const present = new Set(refused)
      for (const id of sinceMs.keys()) if (!present.has(id)) sinceMs.delete(id)
      const lasting = new Set<Id>()
      let youngMs: number | null = null
      for (const id of refused) {
        const since = sinceMs.get(id) ?? atMs
        sinceMs.set(id, since)
        const leftMs = buyHoldMs - (atMs - since)
        if (leftMs <= 0) lasting.add(id)
        else youngMs = Math.min(youngMs ?? leftMs, leftMs)
      }
      return { lasting, youngMs }
    },
    forget: () => sinceMs.clear(),
  }
}

/** After work a rest of this many times as long: at most a fifth of a core goes into it. */
const REST_PER_WORK = 4

/** Keeps work that comes back with every change from filling this process. */
export interface Rest {
  /** How much longer to rest, ms; 0: not at all. */
  leftMs(nowMs: number): number
  /** Work was done from then until now. */
  worked(sinceMs: number, nowMs: number): void
}

/** @param longestMs no rest is longer */
export function createRest(longestMs: number): Rest {
  let untilMs = Number.NEGATIVE_INFINITY
  return {
    leftMs: (nowMs) => Math.max(0, Math.ceil(untilMs - nowMs)),
    worked(sinceMs, nowMs) {
      untilMs = nowMs + Math.min(longestMs, REST_PER_WORK * (nowMs - sinceMs))
    },
  }
}

/** With many services stepping down it is asked no more often than this: a look costs what a large cluster's placement costs. */
const LEAST_BETWEEN_LOOKS_MS = 5_000

/** When it is asked whether a machine can go: every interval, and soon after instances were taken away. */
export interface DownTimer {
  readonly nextAtMs: number
  scaledDown(nowMs: number): void
  /** Whether it is time; if so, the next time is an interval later. */
  take(nowMs: number): boolean
}

export function createDownTimer(intervalMs: number, startMs: number): DownTimer {
  let nextAtMs = startMs + intervalMs
  let takenAtMs = Number.NEGATIVE_INFINITY
  return {
    get nextAtMs() {
      return nextAtMs
    },
    scaledDown(nowMs) {
      nextAtMs = Math.min(nextAtMs, Math.max(nowMs, takenAtMs + LEAST_BETWEEN_LOOKS_MS))
    },
    take(nowMs) {
      if (nowMs < nextAtMs) return false
      takenAtMs = nowMs
      nextAtMs = nowMs + intervalMs
      return true
    },
  }
}

/** Why no node is given back now. */
export interface Hold {
  readonly text: string
  /** Not even for the budget's sake. */
  readonly always: boolean
}

export interface FirmHoldInput {
  /** Why the coordinator changes nothing at present, or null. */
  readonly frozen: string | null
  /** Nodes that drain, and machines that are being deleted. */
  readonly leaving: number
  readonly config: Pick<FleetConfig, 'maxParallelDrains'>
}

/** What holds even for the budget's sake and whatever the cluster is like: a freeze, and enough nodes that leave already. Pure. */
export function firmHoldOf({ frozen, leaving, config }: FirmHoldInput): Hold | null {
  if (frozen !== null) return { text: `frozen: ${frozen}`, always: true }
  if (leaving < config.maxParallelDrains) return null
  const nodes = `${leaving} node${leaving === 1 ? ' is' : 's are'}`
  return { text: `${nodes} being given back, ${config.maxParallelDrains} at a time`, always: true }
}
