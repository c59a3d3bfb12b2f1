/** What plans of one instance see, what they decide, and the words in which they say it. Pure. */
import { compare } from '../../shared/compare.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { Reason } from '../../shared/plan.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import type { InstanceMemory, SeenContainer } from './instance-memory.ts'
import type { ReconcileAction, ReconcileState } from './plan-reconcile.ts'

export interface InstanceView {
  readonly instance: string
  readonly assignment: Assignment | null
  readonly containers: readonly SeenContainer[]
  readonly state: ReconcileState
}

export interface Decision {
  readonly action: ReconcileAction | null
  readonly reason: Reason | null
  readonly wakeAtMs: number | null
}

export function stopStep(container: SeenContainer, graceMs: number): ReconcileAction {
  return { kind: 'stop', instance: container.instance, runtime: container.runtime, id: container.id, graceMs }
}

/** Only the memory changes. */
export function mark(view: InstanceView, patch: Partial<InstanceMemory>): Decision {
  return { action: { kind: 'mark', instance: view.instance, patch }, reason: null, wakeAtMs: null }
}

/** The world changes. */
export function step(view: InstanceView, action: ReconcileAction): Decision {
  return { action, reason: { subject: view.instance, code: action.kind, text: `next: ${action.kind}` }, wakeAtMs: null }
}

export function waitUntil(view: InstanceView, wakeAtMs: number, code: string, text: string): Decision {
  return { action: null, reason: { subject: view.instance, code, text }, wakeAtMs }
}

/** Only an event can change this. */
export function idle(view: InstanceView, code: string, text: string): Decision {
  return { action: null, reason: { subject: view.instance, code, text }, wakeAtMs: null }
}

/** Main first, so that sidecars serve it to its end; names of an unknown unit by age. */
export function inStopOrder({ containers }: InstanceView, unit?: UnitSpec | null): SeenContainer[] {
  const place = (container: SeenContainer) => {
    const index = unit?.containers.findIndex((spec) => spec.name === container.container) ?? -1
    return index === -1 ? Number.MAX_SAFE_INTEGER : index
  }
  return [...containers].sort((a, b) => place(a) - place(b) || (a.startedAtMs ?? 0) - (b.startedAtMs ?? 0) || compare(a.id, b.id))
}
