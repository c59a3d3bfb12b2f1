/** What views are made from, gathered from what the API has. Reads only. */
import { createCalendar } from '../../shared/calendar.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { ApiDeps, Explanations } from './deps.ts'
import type { World } from './views.ts'

/** The world as views show it, with what scaling, forecasts, placement and fleet know. */
export function worldOf({ state, observed, explain }: Pick<ApiDeps, 'state' | 'observed' | 'explain'>): World {
  return {
    snapshot: state.snapshot,
    observed,
    calendar: createCalendar(),
    forecast: (id) => explain.forecast(id),
    objective: (id) => explain.objective(id),
    threshold: (id) => explain.scaling(id)?.thresholdPercent ?? null,
    waits: (id) => whyItWaits(explain, id),
  }
}

/** The most telling of what is known: a machine that comes, a scheduler that is asked, why it fits nowhere. */
function whyItWaits(explain: Explanations, id: InstanceId): string | null {
  const machine = explain.waitingFor(id)
  if (machine !== null) return `waits for machine ${machine}`
  const asking = explain.asking(id)
  return asking === null ? explain.placement(id) : `scheduler ${asking} is being asked`
}
