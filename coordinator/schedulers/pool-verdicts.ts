/**
 * What a custom scheduler thinks of machines that could be bought for a group: learned from what it said of the nodes of each pool, so
 * that one which refuses everything makes nobody buy without end. A pool is *proven* while the last answer accepted a node of
 * it. It is *turned down* when a fresh node of it was refused: one that runs nothing, or that joined while the group waited. Pure.
 */
import type { NodeId } from '../../shared/model/identity.ts'
import type { Verdict } from '../placement/answers.ts'

export interface PoolVerdict {
  readonly isProven: boolean
  /** No machine of the pool is bought for the group before; monotonic ms. */
  readonly refusedUntilMs: number
  /** What was said of the last fresh node; '' when none was refused. */
  readonly reason: string
  /** Fresh nodes refused since one was accepted: each doubles the time. */
  readonly refused: ReadonlySet<NodeId>
}

export type PoolVerdicts = ReadonlyMap<string, PoolVerdict>

export const NO_POOL_VERDICTS: PoolVerdicts = new Map()

export interface SeenNode {
  readonly id: NodeId
  readonly pool: string | null
  readonly isFresh: boolean
  readonly verdict: Verdict
}

/** A machine bought and given back costs money each time; after the first one in vain the next is tried an hour later. */
const FIRST_PAUSE_MS = 3_600_000
const LONGEST_PAUSE_MS = 86_400_000
/** Beyond it the longest pause is reached anyway. */
const MAX_REFUSED = 16

/** With what one answer said of the nodes that it was asked about. */
export function learnPools(before: PoolVerdicts, seen: readonly SeenNode[], nowMs: number): PoolVerdicts {
  const after = new Map(before)
  const byPool = new Map<string, SeenNode[]>()
  for (const node of seen) {
    if (node.pool === null) continue
    const list = byPool.get(node.pool)
    if (list) list.push(node)
    else byPool.set(node.pool, [node])
  }
  for (const [pool, nodes] of byPool) {
    if (nodes.some((node) => node.verdict.kind === 'accept')) {
      after.set(pool, { isProven: true, refusedUntilMs: 0, reason: '', refused: new Set() })
      continue
    }
    const known = before.get(pool)
    const fresh = nodes.filter((node) => node.isFresh)
    const last = fresh.at(-1)
    if (last?.verdict.kind !== 'reject') {
      if (known) after.set(pool, { ...known, isProven: false })
      continue
    }
    const refused = new Set([...(known?.refused ?? []), ...fresh.map((node) => node.id)].slice(-MAX_REFUSED))
    const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (refused.size - 1))
    after.set(pool, { isProven: false, refusedUntilMs: nowMs + pauseMs, reason: last.verdict.reason, refused })
  }
  return after
}
