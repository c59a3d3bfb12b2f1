/**
 * Rubato's own policy: the very functions that its loops call, at their cadence, over the model world. The load window and
 * planReplicas every tick; the forecast every minute; planPlacement whenever something waits; planCapacity when something fits
 * nowhere or will not; planConsolidation every down interval.
 */
import { createDemandForecaster } from '../../forecast/demand-forecaster.ts'
import { DEFAULT_FLEET_CONFIG } from '../../fleet/config.ts'
import { createLoadWindow, type LoadReport } from '../../scaling/load-window.ts'
import { planReplicas, type ReplicasInput, upperThreshold } from '../../scaling/plan-replicas.ts'
import type { ScaleRules } from '../../../shared/model/app.ts'
import type { Controller, Policy, PolicyContext } from '../policy.ts'
import { createRubatoFleet } from './rubato-fleet.ts'

const MINUTE_MS = 60_000
const SATURATED_PERCENT = 98
const K: any = { Q: 1, T: 1, U: 1, H: 1, AGE: 600, LOW: 60, HIGH: 80, HEAD: 10, ...Object.fromEntries(Object.entries(process.env).filter(([k]) => k.startsWith('K_')).map(([k, v]) => [k.slice(2), Number(v)])) }

function start({ world, app, spec, rules: given, pools, startTimeMs }: PolicyContext, predicts: boolean): Controller {
  const rules = { ...given, lowPercent: K.LOW, highPercent: K.HIGH }
  const fleet = createRubatoFleet({ world, app, spec, config: { ...DEFAULT_FLEET_CONFIG, minNodeAgeMs: K.AGE * 1000, headroomPercent: K.HEAD }, pools })
  const window = createLoadWindow(rules.windowMs, rules.downWindowMs)
  const reports: LoadReport[] = []
  const memoryOnly = spec.unit.load.length > 0 && spec.unit.load.every(({ kind }) => kind === 'memory')
  const machineLeadMs = Math.max(...pools.map((pool) => pool.bootMs)) + startTimeMs
  const forecaster = predicts ? createDemandForecaster({ horizonMs: machineLeadMs + 2 * MINUTE_MS }) : null
  let lastStep: { readonly from: number; readonly to: number; readonly atMs: number } | null = null
  let meanBeforePercent: number | null = null
  let minute = 0
  let minuteSum = 0
  let minuteCount = 0
  let least = 0
  let ahead = 0
  let expected: number | null = null

  const scale = (ready: number) => {
    const load = window.summary(world.nowMs)
    const input: ReplicasInput = {
      serviceId: `${app}/${spec.name}`,
      rules: { ...rules, min: Math.max(rules.min, least) },
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

  const predict = () => {
    if (forecaster === null) return
    const near = forecaster.forecast(startTimeMs + MINUTE_MS)
    const far = forecaster.forecast(machineLeadMs + MINUTE_MS * K.H)
    const peak = (f: typeof far) => f === null ? 0 : Math.max(...f.upper.map((u, i) => (f.expected[i] ?? 0) + K.Q * (u - (f.expected[i] ?? 0))))
    least = near !== null && (near.isTrusted || K.U) ? countFor(rules, peak(near)) : 0
    ahead = far !== null && (far.isTrusted || K.U) ? countFor(rules, peak(far)) : 0
    if (K.N !== undefined) least = K.N ? Math.max(least, Math.min(ahead, K.N * least)) : 0
    expected = far === null ? null : far.peak / 100
  }

  return {
    get forecast() {
      return expected
    },
    learn(atMs, demand) {
      forecaster?.observe(atMs, 100 * demand)
    },
    tick({ ready, loadPercent, arrived }) {
      const report: LoadReport = { loadPercent, demand: null }
      reports.length = ready
      reports.fill(report)
      if (window.isDue(world.nowMs)) window.add(world.nowMs, reports)
      // Full instances hide demand; what requests cost before they were full tells it.
      minuteSum += loadPercent >= SATURATED_PERCENT ? Math.max(arrived * 100, ready * loadPercent) : ready * loadPercent
      minuteCount += 1
      const now = Math.floor(world.nowMs / MINUTE_MS)
      if (now !== minute) {
        forecaster?.observe((now - 1) * MINUTE_MS, minuteSum / minuteCount)
        minute = now
        minuteSum = 0
        minuteCount = 0
        predict()
      }
      scale(ready)
      fleet.tick(ahead)
    },
  }
}

function countFor(rules: ScaleRules, demandPercent: number): number {
  let n = 1
  const t = (n: number) => K.T > 1 ? K.T : K.T * upperThreshold(rules, n)
  while (n < rules.max && demandPercent / n > t(n)) n += 1
  return n
}

/** Without its forecast: what it does for a series that no forecast fits. */
export const rubatoReactive: Policy = {
  id: 'rubato-reactive',
  title: 'Rubato, no forecast',
  source: 'coordinator/scaling, coordinator/fleet',
  start: (context) => start(context, false),
}

export const rubato: Policy = {
  id: 'rubato',
  title: 'Rubato',
  source: 'coordinator/scaling, coordinator/forecast, coordinator/fleet',
  start: (context) => start(context, true),
}
