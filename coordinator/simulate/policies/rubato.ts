/**
 * Rubato's own policy: the very functions that its loops call, at their cadence, over the model world. The load window and
 * planReplicas every tick; planPlacement whenever something waits; planCapacity when something fits nowhere, and at least every
 * down interval; planConsolidation every down interval.
 */
import { DEFAULT_FLEET_CONFIG } from '../../fleet/config.ts'
import type { Policy } from '../policy.ts'
import { createRubatoFleet } from './rubato-fleet.ts'
import { createLoadWindow, type LoadReport } from '../../scaling/load-window.ts'
import { planReplicas, type ReplicasInput } from '../../scaling/plan-replicas.ts'

/** Without its forecast: what it does for a series that no forecast fits. */
export const rubatoReactive: Policy = {
  id: 'rubato-reactive',
  title: 'Rubato, no forecast',
  source: 'coordinator/scaling, coordinator/fleet',
  start({ world, app, spec, rules, pools }) {
    const fleet = createRubatoFleet({ world, app, spec, config: DEFAULT_FLEET_CONFIG, pools })
    const window = createLoadWindow(rules.windowMs, rules.downWindowMs)
    const reports: LoadReport[] = []
    let lastStep: { readonly from: number; readonly to: number; readonly atMs: number } | null = null
    let meanBeforePercent: number | null = null
    const memoryOnly = spec.unit.load.length > 0 && spec.unit.load.every(({ kind }) => kind === 'memory')
    const scale = (ready: number) => {
      const load = window.summary(world.nowMs)
      const input: ReplicasInput = {
        serviceId: `${app}/${spec.name}`,
        rules,
        wanted: world.wanted,
        pinned: null,
        excluded: 0,
        ready: Math.min(ready, world.wanted),
        load,
        lastStep: lastStep && { from: lastStep.from, to: lastStep.to, agoMs: world.nowMs - lastStep.atMs },
        rolloutUnhealthy: false,
        memoryOnly,
        meanBeforePercent,
      }
      const [action] = planReplicas(input).actions
      if (action === undefined) return
      if (action.to > action.from) meanBeforePercent = load.meanPercent
      lastStep = { from: action.from, to: action.to, atMs: world.nowMs }
      world.scaleTo(action.to, action.reason)
    }
    return {
      tick({ ready, loadPercent }) {
        const report: LoadReport = { loadPercent, demand: null }
        reports.length = ready
        reports.fill(report)
        if (window.isDue(world.nowMs)) window.add(world.nowMs, reports)
        scale(ready)
        fleet.tick()
      },
    }
  },
}
