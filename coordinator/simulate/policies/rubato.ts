/**
 * Rubato's own policy: the very functions that its loops call, over the model world. The load window and planReplicas every tick,
 * by the rules as schedules and objective make them;
 * the forecast every minute, over an instance's lead time for the count and over a machine's for the fleet; planPlacement
 * whenever something waits; planCapacity when something fits nowhere or will not; planCancellation and planConsolidation every down
 * interval.
 */
import { createCalendar } from '../../../shared/calendar.ts'
import { countAhead } from '../../fleet/predicted.ts'
import { createDemandForecaster } from '../../forecast/demand-forecaster.ts'
import { LONGEST_HORIZON_MS } from '../../forecast/forecast-loop.ts'
import type { DemandForecast } from '../../forecast/forecaster.ts'
import { horizonOf, leadOfOrder } from '../../forecast/horizon.ts'
import { createLoadWindow, type LoadReport } from '../../scaling/load-window.ts'
import { createObjectiveKeeper } from '../../scaling/objective-keeper.ts'
import { planReplicas } from '../../scaling/plan-replicas.ts'
import { createPresentRules } from '../../scaling/present-rules.ts'
import type { Controller, Observation, Policy, PolicyContext } from '../policy.ts'
import { createRubatoFleet } from './rubato-fleet.ts'

const MINUTE_MS = 60_000
/** From this load on instances hide demand, and the forecast is told what the requests that arrive would need. */
const FULL_PERCENT = 98

function start(context: PolicyContext, predicts: boolean): Controller {
  const { world, app, spec, rules, pools, settings, startTimeMs } = context
  const fleet = createRubatoFleet({ world, app, spec, config: settings.fleet, placement: settings.placement, pools })
  const objective = createObjectiveKeeper(0)
  const present = createPresentRules(createCalendar(), objective)
  const window = createLoadWindow(rules.windowMs, rules.downWindowMs)
  const reports: LoadReport[] = []
  const memoryLed = spec.unit.load.length > 0 && spec.unit.load.every(({ kind }) => kind === 'memory')
  const machineMs = Math.max(...pools.map(({ bootMs }) => bootMs))
  const orderMs = leadOfOrder({ startMs: startTimeMs, machineMs }) ?? 0
  const machineHorizonMs = horizonOf(orderMs)
  const forecaster =
    predicts && rules.predict === 'auto'
      ? createDemandForecaster({
          horizonMs: Math.min(LONGEST_HORIZON_MS, machineHorizonMs),
          timeZone: rules.schedules?.[0]?.timeZone ?? settings.timeZone,
        })
      : null
  let lastStep: { readonly from: number; readonly to: number; readonly atMs: number } | null = null
  let meanBeforePercent: number | null = null
  let minute = Math.floor(world.nowMs / MINUTE_MS)
  let minuteSum = 0
  let minuteCount = 0
  let near: DemandForecast | null = null
  let ahead = 0
  let expected: number | null = null

  const rulesNow = () => present.at(rules, world.nowMs, orderMs)

  const scale = ({ ready, answerTimes }: Observation) => {
    const isWaiting = forecaster === null && world.instances.some(({ state }) => state === 'pending')
    const leadMs = leadOfOrder({ startMs: startTimeMs, machineMs: isWaiting ? machineMs : null }) ?? 0
    const load = window.summary(world.nowMs, leadMs)
    const now = rulesNow()
    const agoMs = lastStep === null ? null : world.nowMs - lastStep.atMs
    const { actions, decision } = planReplicas({
      serviceId: `${app}/${spec.name}`,
      rules: now,
      boundsNote: present.bounds?.note ?? null,
      forecast: near,
      wanted: world.wanted,
      pinned: null,
      excluded: 0,
      ready: Math.min(ready, world.wanted),
      load,
      leadMs,
      lastStep: lastStep === null || agoMs === null ? null : { from: lastStep.from, to: lastStep.to, agoMs },
      rolloutUnhealthy: false,
      memoryLed,
      meanBeforePercent,
    })
    if (rules.objective !== undefined)
      objective.observe({
        atMs: world.nowMs,
        rules,
        objectiveMs: rules.objective.latencyP95Ms,
        answerTimes: answerTimes(),
        meanPercent: load.meanPercent,
        thresholdPercent: decision.thresholdPercent ?? now.highPercent,
        isSteady: ready >= world.wanted,
        lastStepAgoMs: agoMs,
        atMost: world.wanted >= now.max,
      })
    const [action] = actions
    if (action === undefined) return
    if (action.to > action.from) meanBeforePercent = load.meanPercent
    lastStep = { from: action.from, to: action.to, atMs: world.nowMs }
    world.scaleTo(action.to, action.reason)
  }

  const predict = () => {
    if (forecaster === null) return
    near = forecaster.forecast(horizonOf(startTimeMs))
    const far = forecaster.forecast(machineHorizonMs)
    const count = far === null ? null : countAhead(far, rulesNow())
    ahead = count ?? 0
    expected = far === null || count === null ? null : far.peak / 100
  }

  return {
    get forecast() {
      return expected
    },
    learnUsual(atMs, spanMs, demand) {
      forecaster?.learnUsual(atMs, spanMs, 100 * demand)
    },
    learn(atMs, demand) {
      forecaster?.observe(atMs, 100 * demand)
    },
    tick(seen) {
      const { ready, loadPercent, arrived, requests } = seen
      const report: LoadReport = { loadPercent, demand: null }
      reports.length = ready
      reports.fill(report)
      if (window.isDue(world.nowMs)) window.add(world.nowMs, reports, requests)
      const shown = ready * loadPercent
      minuteSum += loadPercent >= FULL_PERCENT ? Math.max(shown, 100 * arrived) : shown
      minuteCount += 1
      const now = Math.floor(world.nowMs / MINUTE_MS)
      if (now !== minute) {
        forecaster?.observe(minute * MINUTE_MS, minuteSum / minuteCount)
        minute = now
        minuteSum = 0
        minuteCount = 0
        predict()
      }
      scale(seen)
      fleet.tick(ahead)
    },
  }
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
