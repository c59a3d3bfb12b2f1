/** How the audit trail says what fits nowhere: one event for each group and reason, and when very many wait, one for each reason. Pure. */
import type { EventDraft } from '../../shared/model/event.ts'
import { explanationKind, renderExplanation } from './explain.ts'
import type { Refusal } from './plan-placement.ts'

/** Instances named in one event. */
const NAMED_PER_EVENT = 10
/** Groups that get an event of their own; all of them fit into one commit. */
const MOST_GROUPS = 40

/** The filters that turned every node away; told anew only when these change. '' for what was not refused. */
export function kindOf(refusal: Refusal | undefined): string {
  return refusal === undefined ? '' : explanationKind(refusal.explanation)
}

export function refusalEvents(refusals: readonly Refusal[]): readonly EventDraft[] {
  const groups = [...Map.groupBy(refusals, (refusal) => `${refusal.request.group}\n${kindOf(refusal)}`).values()]
  const events = groups.slice(0, MOST_GROUPS).map((group) => {
    const [first] = group as [Refusal]
    return eventOf(group, group.length > 1 ? ` and ${group.length - 1} more of ${first.request.service}` : '')
  })
  const rest = Map.groupBy(groups.slice(MOST_GROUPS).flat(), kindOf)
  for (const alike of [...rest.values()].slice(0, MOST_GROUPS)) {
    const services = new Set(alike.map(({ request }) => request.service)).size
    events.push(eventOf(alike, ` and ${alike.length - 1} more of ${services} services`))
  }
  return events
}

function eventOf(alike: readonly Refusal[], more: string): EventDraft {
  const [first] = alike as [Refusal]
  return {
    actor: 'placement',
    type: 'instance.unplaced',
    subject: first.instance,
    message: `${first.instance}${more}: ${renderExplanation(first.explanation)}`.slice(0, 1_000),
    severity: 'warning',
    data: { instances: alike.slice(0, NAMED_PER_EVENT).map(({ instance }) => instance), count: alike.length },
  }
}
