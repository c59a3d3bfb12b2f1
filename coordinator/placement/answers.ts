/**
 * What custom schedulers said, as data that placement is planned with. A scheduler narrows and orders the nodes that pass the
 * filters; a node that a filter turns away stays turned away whatever it says. Pure.
 */
import type { NodeId } from '../../shared/model/identity.ts'

/** Of one node: a score from 0 to 100, larger is better, and how many more instances it may take; or why it takes none. */
export type Verdict =
  | { readonly kind: 'accept'; readonly score: number; readonly atMost: number | null }
  | { readonly kind: 'reject'; readonly reason: string }

/** Of the nodes for one group of equal requests. */
export interface GroupAnswer {
  readonly scheduler: string
  readonly verdicts: ReadonlyMap<NodeId, Verdict>
  /** Whether nodes that it was not asked about take instances: never in production; in a plan of machines that do not exist yet, always. */
  readonly others: 'closed' | 'open'
}

/** By the key of the group. */
export type Answers = ReadonlyMap<string, GroupAnswer>

export const NO_ANSWERS: Answers = new Map()

/** Labels of explanations begin with it where it was a scheduler that turned nodes away. */
export const SCHEDULER_LABEL = 'scheduler '

const UNASKED: Verdict = { kind: 'reject', reason: 'not asked about yet' }
const OPEN: Verdict = { kind: 'accept', score: 0, atMost: null }

export function verdictOf(answer: GroupAnswer, node: NodeId): Verdict {
  return answer.verdicts.get(node) ?? (answer.others === 'open' ? OPEN : UNASKED)
}

/** "scheduler gpu-first: too hot". */
export function verdictLabel(answer: GroupAnswer, reason: string): string {
  return `${SCHEDULER_LABEL}${answer.scheduler}: ${reason}`
}

/** Whether it would have none of the nodes that it was asked about. */
export function acceptsNone({ verdicts }: GroupAnswer): boolean {
  for (const verdict of verdicts.values()) if (verdict.kind === 'accept') return false
  return true
}

/** The scheduler that chose a node, and the score that it gave it. */
export interface ChosenBy {
  readonly scheduler: string
  readonly score: number
}

/**
 * Who chose, after "it was"; null for a service that names no scheduler. Without `chosenBy` the built-in one chose in the place of the
 * one that is named, and `why` says why.
 */
export function whoChose(named: string | undefined, chosenBy: ChosenBy | undefined, why: string | null): string | null {
  if (named === undefined) return null
  if (chosenBy) return `chosen by scheduler ${chosenBy.scheduler} with a score of ${Math.round(chosenBy.score * 100) / 100}`
  return `chosen by the built-in scheduler, not by ${named}: ${why ?? 'it was not asked'}`
}
