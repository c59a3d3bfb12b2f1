/** Feeds what agents report into the estimates of learned use: one sample per report of an instance that is ready. */
import type { Clock } from '../../shared/clock.ts'
import { serviceIdOf } from '../../shared/model/identity.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import type { LearnedUse } from './learned-use.ts'

/** Returns what ends it. Start-up and draining are no use worth planning with: only `ready` counts. Takes monotonic time. */
export function feedLearnedUse(
  learned: LearnedUse,
  { state, observed, clock }: { readonly state: State; readonly observed: Observed; readonly clock: Clock },
): () => void {
  return observed.onChange(({ instances, useOnly }) => {
    if (!useOnly) return
    const nowMs = clock.monotonicMs()
    for (const id of instances) {
      const seen = observed.instance(id)
      if (!seen?.use || seen.phase !== 'ready') continue
      learned.sample(serviceIdOf(id), state.snapshot.get('node', seen.nodeId)?.pool ?? null, seen.use, nowMs)
    }
  })
}
