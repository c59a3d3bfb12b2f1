/**
 * What may be bought for services that name a custom scheduler? It is not asked about machines that do not exist, and it may refuse
 * every one that is bought for it. So a machine of a pool that it has not proven to like is bought on trial: one at a time, and none
 * of a pool that turned out in vain, for an hour and longer each time (pool-verdicts.ts). Pure.
 */
import type { InstanceId } from '../../shared/model/identity.ts'
import type { PlacementRequest } from '../placement/model.ts'
import { NO_POOL_VERDICTS, type PoolVerdicts } from '../schedulers/pool-verdicts.ts'

export interface TrialInput {
  readonly refused: readonly PlacementRequest[]
  /** Names of all pools. */
  readonly pools: readonly string[]
  /** What the scheduler of the request thinks of pools; null when the built-in one decides for it. */
  readonly verdictsOf: (request: PlacementRequest) => PoolVerdicts | null
  /** Monotonic. */
  readonly nowMs: number
}

export interface TrialPlan {
  /** To be bought for, each bound to pools that are not turned down. */
  readonly refused: readonly PlacementRequest[]
  /** Instances that nothing is bought for, and why. */
  readonly blocked: ReadonlyMap<InstanceId, string>
  /** When a pool may be tried again, monotonic ms; null when none is turned down. */
  readonly wakeAtMs: number | null
}

export function planTrials({ refused, pools, verdictsOf, nowMs }: TrialInput): TrialPlan {
  const blocked = new Map<InstanceId, string>()
  let wakeAtMs: number | null = null
  const onTrial = new Set<string>()
  const wanted = refused.flatMap((request) => {
    const verdicts = request.rules.scheduler === undefined ? null : verdictsOf(request)
    if (verdicts === null || pools.length === 0) return [request]
    const own = request.rules.pools.length > 0 ? request.rules.pools : pools
    const open = own.filter((pool) => !isTurnedDown(verdicts, pool, nowMs))
    for (const pool of own) {
      const untilMs = verdicts.get(pool)?.refusedUntilMs ?? 0
      if (untilMs > nowMs) wakeAtMs = Math.min(wakeAtMs ?? untilMs, untilMs)
    }
    if (open.length === 0) {
      const why = own.map((pool) => `${pool}: ${verdicts.get(pool)?.reason}`).join('; ')
      blocked.set(request.id, `scheduler ${request.rules.scheduler} wanted no fresh machine of any pool, ${why}`)
      return []
    }
    if (!open.some((pool) => verdicts.get(pool)?.isProven)) {
      if (onTrial.has(request.group)) return []
      onTrial.add(request.group)
    }
    return [{ ...request, rules: { ...request.rules, pools: open } }]
  })
  return { refused: wanted, blocked, wakeAtMs }
}

/** Of the ghosts those whose scheduler, if they have one, has turned down no pool: it is not known what it will want. */
export function withoutDoubtful<G extends { readonly request: PlacementRequest }>(
  ghosts: readonly G[],
  verdictsOf: TrialInput['verdictsOf'],
  nowMs: number,
): readonly G[] {
  return ghosts.filter(({ request }) => {
    if (request.rules.scheduler === undefined) return true
    const verdicts = verdictsOf(request) ?? NO_POOL_VERDICTS
    return ![...verdicts.keys()].some((pool) => isTurnedDown(verdicts, pool, nowMs))
  })
}

function isTurnedDown(verdicts: PoolVerdicts, pool: string, nowMs: number): boolean {
  return (verdicts.get(pool)?.refusedUntilMs ?? 0) > nowMs
}
