/**
 * Who has a turn in a pass that cannot look at everybody: in its first half all in order, in its second those that had none since all
 * last had (ADR 0027). Either half ends with whoever uses up its work. Pure: one object belongs to one plan.
 */
import type { NodeId } from '../../shared/model/identity.ts'

export interface Turns {
  /** Whether the node has a turn now. */
  take(id: NodeId): boolean
  /** Work done for whoever had the last turn, in nodes that placement looks at, and how often placement was asked about many. */
  spend(work: number, placements?: number): void
  /** The pass ends early: whoever was not asked about had no turn. */
  leaveRest(): void
  /** Nodes that have had their turn since all of them last had; none when all had it just now. */
  tried(): ReadonlySet<NodeId>
}

/** Work of half a pass, in nodes that placement looks at: about 25 ms. Beyond that heartbeats and the store's lease would wait for it. */
const WORK_PER_HALF = 2_500
/** On a small cluster work is no limit: so many are tried at most in either half. */
const TRIED_PER_HALF = 10

/** @param before what the pass before answered as `tried` */
export function turnsOf(before: ReadonlySet<NodeId>): Turns {
  const tried = new Set(before)
  let isFirstHalf = true
  let work = 0
  let placed = 0
  let hasLeftOut = false
  const isSpent = () => work >= WORK_PER_HALF || placed >= TRIED_PER_HALF
  return {
    take(id) {
      if (isFirstHalf && isSpent()) {
        isFirstHalf = false
        work = 0
        placed = 0
      }
      const mayGo = isFirstHalf || (!isSpent() && !before.has(id))
      if (mayGo) tried.add(id)
      else if (!before.has(id)) hasLeftOut = true
      return mayGo
    },
    spend(amount, placements = 0) {
      work += amount
      placed += placements
    },
    leaveRest() {
      hasLeftOut = true
    },
    tried: () => (hasLeftOut ? tried : new Set()),
  }
}
