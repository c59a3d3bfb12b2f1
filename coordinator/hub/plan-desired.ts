/** The set of instances that a node shall have, as its agent is told. Pure. */
import { parseInstanceId } from '../../shared/model/identity.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { Reason } from '../../shared/plan.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import { specOfInstance, specsOf } from '../services/kept-specs.ts'
import type { AppRecord, InstanceRecord, NodeAssignments } from '../state/objects.ts'

export interface DesiredPlan {
  readonly assignments: ReadonlyMap<string, Assignment>
  /** Instances whose unit is in no revision that is still kept: they are left out. */
  readonly reasons: readonly Reason[]
}

/** Assignments by instance id. Objects of `previous` are reused where nothing changed (a spec hash stands for one unit). */
export function planDesired(
  wanted: NodeAssignments | undefined,
  appOf: (name: string) => AppRecord | undefined,
  previous: ReadonlyMap<string, Assignment>,
): DesiredPlan {
  const assignments = new Map<string, Assignment>()
  const reasons: Reason[] = []
  for (const record of wanted?.instances ?? []) {
    const before = previous.get(record.id)
    if (before && before.specHash === record.specHash && before.goal === record.goal) {
      assignments.set(record.id, before)
      continue
    }
    const unit = before?.specHash === record.specHash ? before.unit : unitOf(record, appOf)
    if (unit) assignments.set(record.id, { instance: record.id, specHash: record.specHash, goal: record.goal, unit })
    else
      reasons.push({ subject: record.id, code: 'unit-unknown', text: `no kept revision of its app has unit ${record.specHash}` })
  }
  return { assignments, reasons }
}

/** What the record runs; to stop it, any kept revision will do: only its drain and grace matter. */
function unitOf(record: InstanceRecord, appOf: (name: string) => AppRecord | undefined): UnitSpec | null {
  const identity = parseInstanceId(record.id)
  const app = identity === null ? undefined : appOf(identity.app)
  if (!app || !identity) return null
  const spec = specOfInstance(app, record) ?? (record.goal === 'stop' ? specsOf(app, identity.service)[0]?.spec : undefined)
  return spec?.unit ?? null
}
