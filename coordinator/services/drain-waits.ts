/** What a drain cannot move, so that whoever asks for it learns at once why it will take until its deadline. Pure. */
import { compare } from '../../shared/compare.ts'
import { type InstanceId, type NodeId, parseInstanceId } from '../../shared/model/identity.ts'
import type { Snapshot } from '../state/state.ts'
import { specOfInstance } from './kept-specs.ts'
import { hasVolumes } from './service-plan.ts'

export interface DrainWait {
  readonly instance: InstanceId
  readonly why: string
}

/** Instances of the node that stay until the drain's deadline (a job perhaps not as long), sorted by id. */
export function drainWaits(snapshot: Snapshot, nodeId: NodeId): readonly DrainWait[] {
  const waits: DrainWait[] = []
  for (const record of snapshot.get('assignments', nodeId)?.instances ?? []) {
    if (record.goal !== 'run') continue
    const spec = specOfInstance(snapshot.get('app', parseInstanceId(record.id)?.app ?? ''), record)
    if (spec === undefined) continue
    if (hasVolumes(spec))
      waits.push({
        instance: record.id,
        why: 'has its data on this node: it stops at the deadline, and runs again only here',
      })
    else if (spec.job !== undefined) waits.push({ instance: record.id, why: 'is a job: it may finish until the deadline' })
  }
  return waits.sort((a, b) => compare(a.instance, b.instance))
}

/** One sentence for an event or a terminal; '' when everything can move. */
export function drainWaitsText(waits: readonly DrainWait[]): string {
  const [first] = waits
  if (first === undefined) return ''
  const more = waits.length > 1 ? ` (and ${waits.length - 1} more that stay)` : ''
  return `${first.instance} ${first.why}${more}`
}
