/** Watches how long one service's instances spend starting, warming up and draining, and notes it when they are through. */
import type { NodeId } from '../../shared/model/identity.ts'
import type { InstancePhase } from '../../shared/model/observation.ts'
import type { InstanceRecord } from '../state/objects.ts'
import type { LearnedTimes } from './learned-times.ts'

export interface InstanceTimes {
  observe(
    instances: readonly InstanceRecord[],
    phaseOf: (instance: string) => InstancePhase | null,
    poolOf: (node: NodeId | null) => string,
    monotonicMs: number,
  ): void
  /** Since it was first seen with a place and not ready, ms; 0 for others. */
  waitedMs(instance: string, monotonicMs: number): number
  /** Placed instances that are to run and not ready yet. */
  readonly starting: number
}

interface Times {
  readonly placedMs: number
  warmingMs: number | null
  drainingMs: number | null
  isReady: boolean
}

export function createInstanceTimes(learned: LearnedTimes): InstanceTimes {
  const known = new Map<string, Times>()
  /** Those of the first look had begun before we looked. */
  let isFirst = true
  let starting = 0
  return {
    observe(instances, phaseOf, poolOf, nowMs) {
      starting = 0
      for (const { id, nodeId, goal } of instances) {
        if (nodeId === null) continue
        const phase = phaseOf(id)
        let times = known.get(id)
        if (times === undefined) {
          times = { placedMs: nowMs, warmingMs: null, drainingMs: null, isReady: isFirst && phase === 'ready' }
          known.set(id, times)
        }
        if (phase === 'warming') times.warmingMs ??= nowMs
        if (phase === 'ready' && !times.isReady) {
          times.isReady = true
          learned.add('start', poolOf(nodeId), nowMs - times.placedMs)
          if (times.warmingMs !== null) learned.add('warmUp', poolOf(nodeId), nowMs - times.warmingMs)
        }
        if (phase === 'draining') times.drainingMs ??= nowMs
        if (phase === 'stopped' && times.drainingMs !== null) {
          learned.add('coolDown', poolOf(nodeId), nowMs - times.drainingMs)
          times.drainingMs = null
        }
        if (goal === 'run' && !times.isReady) starting += 1
      }
      isFirst = false
      if (known.size <= instances.length) return
      const present = new Set(instances.map(({ id }) => id))
      for (const id of known.keys()) if (!present.has(id)) known.delete(id)
    },
    waitedMs: (instance, nowMs) => {
      const times = known.get(instance)
      return times === undefined || times.isReady ? 0 : nowMs - times.placedMs
    },
    get starting() {
      return starting
    },
  }
}
