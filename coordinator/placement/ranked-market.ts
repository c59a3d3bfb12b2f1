/**
 * The market (market.ts) of a group whose service names a scheduler: nodes that it accepted, best score first; of equal scores
 * the one that costs the built-in scheduler least. Filters are asked again for every instance, so that no answer, however late
 * or hostile, puts an instance where it must not be. Looks at every node once, and then only at those accepted. Pure.
 */
import { type GroupAnswer, verdictLabel, verdictOf } from './answers.ts'
import { type Board, zoneValues } from './board.ts'
import { costHeap } from './cost-heap.ts'
import { explanationOf } from './explain.ts'
import { firstStaticRejection, firstTallyRejection, type NodeTally } from './filters.ts'
import { type Market, populationsOf, withoutSelf } from './market.ts'
import type { PlacementOptions, PlacementRequest } from './model.ts'
import { nodeCost, stepsOf, strategyOf, zoneSteps } from './scores.ts'

/** Scores are told apart in hundredths … */
const SCORE_PARTS = 100
/** … each worth more than any cost has steps, and all of them together still an exact integer. */
const STEPS_PER_PART = 2 ** 33

export function openRankedMarket(group: PlacementRequest, board: Board, options: PlacementOptions, answer: GroupAnswer): Market {
  const { tallies } = board
  const strategy = strategyOf(group, options)
  let request = withoutSelf(group, board)
  const populations = populationsOf(group, board)
  const cost: number[] = []
  const tie = tallies.map((_, index) => index)
  const left = new Map<number, number>()

  const priceOf = (index: number): number => {
    const tally = tallies[index] as NodeTally
    const verdict = verdictOf(answer, tally.node.id)
    const score = verdict.kind === 'accept' ? verdict.score : 0
    let steps = stepsOf(nodeCost(request, tally, strategy, options))
    zoneValues(group, tally.node).forEach((value, level) => {
      steps += zoneSteps(populations[level]?.get(value) ?? 0, level, options)
    })
    return Math.round((100 - score) * SCORE_PARTS) * STEPS_PER_PART + steps
  }
  /** Why the node takes no more of the group, or null. */
  const rejection = (index: number): string | null => {
    const tally = tallies[index] as NodeTally
    const filtered = firstStaticRejection(group, tally.node) ?? firstTallyRejection(request, tally, board.volumes)
    if (filtered !== null) return filtered
    const verdict = verdictOf(answer, tally.node.id)
    if (verdict.kind === 'reject') return verdictLabel(answer, verdict.reason)
    return (left.get(index) ?? verdict.atMost ?? 1) > 0 ? null : verdictLabel(answer, 'no more of these')
  }

  const open: number[] = []
  for (let index = 0; index < tallies.length; index += 1) {
    if (rejection(index) !== null) continue
    cost[index] = priceOf(index)
    open.push(index)
  }
  const heap = costHeap(open, cost, tie)

  return {
    cheapest() {
      // Costs of the others only rise while a group is placed (scores.ts), so the top is the cheapest once it is priced anew.
      while (heap.size > 0) {
        const top = heap.top()
        if (rejection(top) !== null) {
          heap.dropTop()
          continue
        }
        const price = priceOf(top)
        if (price === cost[top]) return top
        cost[top] = price
        heap.topChanged()
        if (heap.top() === top) return top
      }
      return -1
    },
    take(member) {
      const index = heap.top()
      const { node } = tallies[index] as NodeTally
      const verdict = verdictOf(answer, node.id)
      if (verdict.kind === 'accept' && verdict.atMost !== null) left.set(index, (left.get(index) ?? verdict.atMost) - 1)
      board.take(member, index)
      board.refresh(index)
      zoneValues(group, node).forEach((value, level) => {
        const population = populations[level]
        population?.set(value, (population.get(value) ?? 0) + 1)
      })
      request = group
      cost[index] = priceOf(index)
      heap.topChanged()
    },
    explain() {
      const counts = new Map<string, number>()
      for (let index = 0; index < tallies.length; index += 1) {
        const label = rejection(index) ?? 'not considered'
        counts.set(label, (counts.get(label) ?? 0) + 1)
      }
      return explanationOf(tallies.length, counts)
    },
    close() {},
  }
}
