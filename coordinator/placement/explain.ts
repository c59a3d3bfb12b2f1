/** Why an instance has no place: how many nodes each filter turned away. Pure. */
import type { Resources } from '../../shared/model/resources.ts'
import { SCHEDULER_LABEL } from './answers.ts'

export interface Rejection {
  /** Filter with its detail: `memory`, `taint gpu`, `constraint node.labels.disk==ssd`. */
  readonly label: string
  readonly count: number
}

export interface Explanation {
  /** Nodes looked at; the counts add up to it. */
  readonly nodes: number
  /** Most frequent first, then by label. */
  readonly rejected: readonly Rejection[]
  /** What is being done about it, e.g. "waiting for machine m-1"; absent when nothing is. */
  readonly note?: string
}

export function explanationOf(nodes: number, counts: ReadonlyMap<string, number>): Explanation {
  const rejected = [...counts].map(([label, count]) => ({ label, count }))
  rejected.sort((a, b) => b.count - a.count || (a.label < b.label ? -1 : a.label > b.label ? 1 : 0))
  return { nodes, rejected }
}

/** "120m CPU and 80 MiB". */
export function chargeText({ cpuMillis, memoryBytes }: Resources): string {
  return `${Math.round(cpuMillis)}m CPU and ${Math.ceil(memoryBytes / 2 ** 20)} MiB`
}

/** "0 of 7 nodes: 3 memory, 2 taint gpu, 2 constraint node.labels.disk==ssd". */
export function renderExplanation(explanation: Explanation): string {
  const { nodes, rejected, note } = explanation
  const base =
    nodes === 0
      ? '0 of 0 nodes: no node has joined'
      : `0 of ${nodes} node${nodes === 1 ? '' : 's'}: ${rejected.map(({ label, count }) => `${count} ${label}`).join(', ')}`
  return note === undefined ? base : `${base}; ${note}`
}

/** What an operator can do where no machine of this kind will ever help; null where waiting or buying may. */
export function remedyOf({ rejected }: Explanation): string | null {
  if (rejected.length === 0 || rejected.some(({ label }) => label !== 'without runtime docker')) return null
  return 'start Docker on a node, or run it as a process ("x-rubato: { runtime: process }")'
}

/**
 * Equal for explanations that name the same filters, whatever their counts: an event is worth it only when this changes. What a
 * custom scheduler gives as its reasons may change with every answer, so only its name counts.
 */
export function explanationKind(explanation: Explanation): string {
  const kinds = explanation.rejected.map(({ label }) =>
    label.startsWith(SCHEDULER_LABEL) ? label.slice(0, label.indexOf(':')) : label,
  )
  return [...new Set(kinds)].sort().join(', ')
}
