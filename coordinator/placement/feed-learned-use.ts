/** Feeds what agents report into the estimates of learned use: a sample now and then of each instance that is ready. */
import type { Clock } from '../../shared/clock.ts'
import { type InstanceId, parseInstanceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { Resources } from '../../shared/model/resources.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import { specOfInstance } from '../services/kept-specs.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { LearnedUse } from './learned-use.ts'

/** However often an agent reports, an instance counts no more often than this: no agent has more to say than another. */
const SAMPLE_MS = 10_000

/** Returns what ends it. Start-up and draining are no use worth planning with: only `ready` counts. Takes monotonic time. */
export function feedLearnedUse(
  learned: Pick<LearnedUse, 'sample'>,
  { state, observed, clock }: { readonly state: State; readonly observed: Observed; readonly clock: Clock },
): () => void {
  const sampledAtMs = new Map<InstanceId, number>()
  return observed.onChange(({ instances, useOnly }) => {
    const nowMs = clock.monotonicMs()
    for (const id of instances) {
      const seen = observed.instance(id)
      if (!seen) sampledAtMs.delete(id)
      if (!useOnly || !seen?.use || seen.phase !== 'ready') continue
      const node = state.snapshot.get('node', seen.nodeId)
      const record = state.snapshot.instances().get(id)
      if (!node || !record || nowMs - (sampledAtMs.get(id) ?? Number.NEGATIVE_INFINITY) < SAMPLE_MS) continue
      sampledAtMs.set(id, nowMs)
      const spec = specOfInstance(state.snapshot.get('app', parseInstanceId(id)?.app ?? ''), record)
      const most = mostOf(node.capacity, spec?.unit)
      learned.sample(serviceIdOf(id), { node: node.id, pool: node.pool, most }, seen.use, nowMs)
    }
  })
}

/** What an instance can use at most: its node, or the limits of its containers where all have one. */
function mostOf(capacity: Resources, unit: UnitSpec | undefined): Resources {
  const within = (key: keyof Resources) => {
    let sum = 0
    for (const { limits } of unit?.containers ?? []) sum += limits[key] || Number.POSITIVE_INFINITY
    return sum === 0 ? capacity[key] : Math.min(capacity[key], sum)
  }
  return { cpuMillis: within('cpuMillis'), memoryBytes: within('memoryBytes') }
}
