/**
 * What one service's instances take: to get ready, to warm up, to drain. Learned per pool, as machines differ. Tells a slow start
 * from one that does not come, and how far ahead scaling must look.
 */
export type LearnedKind = 'start' | 'warmUp' | 'coolDown'

/** 90th percentiles in ms; null until three were seen. */
export interface LearnedView {
  /** Placement to readiness, warm-up included. */
  readonly startMs: number | null
  /** The part of it that is warm-up. */
  readonly warmUpMs: number | null
  /** Begin of draining to the end of the container. */
  readonly coolDownMs: number | null
}

export interface LearnedTimes {
  /** `pool`: that of the node; '' for nodes of none. */
  add(kind: LearnedKind, pool: string, ms: number): void
  /** Of the pool; without one, the largest of the pools. */
  view(pool?: string): LearnedView
  /** Pools with anything learned, sorted. */
  pools(): readonly string[]
}

const KINDS = ['start', 'warmUp', 'coolDown'] as const
const KEPT = 32
const LEAST = 3

/** `kept`: what an earlier coordinator had learned; counts until enough was seen again. */
export function createLearnedTimes(kept: LearnedView | null = null): LearnedTimes {
  const times = new Map<string, Record<LearnedKind, number[]>>()
  const p90 = (kind: LearnedKind, pool: string): number | null => {
    const seen = times.get(pool)?.[kind] ?? []
    if (seen.length < LEAST) return null
    const sorted = [...seen].sort((a, b) => a - b)
    return sorted[Math.ceil(0.9 * sorted.length) - 1] ?? null
  }
  const largest = (kind: LearnedKind): number | null => {
    let most: number | null = null
    for (const pool of times.keys()) {
      const ms = p90(kind, pool)
      if (ms !== null) most = Math.max(most ?? 0, ms)
    }
    return most ?? kept?.[`${kind}Ms`] ?? null
  }
  return {
    add(kind, pool, ms) {
      let own = times.get(pool)
      if (own === undefined) {
        own = { start: [], warmUp: [], coolDown: [] }
        times.set(pool, own)
      }
      own[kind] = [...own[kind], ms].slice(-KEPT)
    },
    view(pool) {
      const of = (kind: LearnedKind) => (pool === undefined ? largest(kind) : p90(kind, pool))
      const [startMs = null, warmUpMs = null, coolDownMs = null] = KINDS.map(of)
      return { startMs, warmUpMs, coolDownMs }
    },
    pools: () => [...times.keys()].sort(),
  }
}
