/** All that scaling knows of one service: its window, what was learned, its bounds and objective, and what was decided. In memory. */
import type { Calendar } from '../../shared/calendar.ts'
import type { Clock } from '../../shared/clock.ts'
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import { type InstanceId, type NodeId, parseInstanceId } from '../../shared/model/identity.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import { horizonOf, leadOfOrder } from '../forecast/horizon.ts'
import type { Traffic } from '../history/traffic-counts.ts'
import type { InstanceRecord, ServiceRecord } from '../state/objects.ts'
import { type InstanceObservation, isRoutable, type Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'
import { createDecisionLog, type DecisionLog } from './decision-log.ts'
import { createInstanceTimes } from './instance-times.ts'
import { createLearnedTimes, type LearnedTimes } from './learned-times.ts'
import { createLoadWindow, type LoadReport, type LoadWindow, type Unheard } from './load-window.ts'
import { createObjectiveKeeper, type ObjectiveKeeper } from './objective-keeper.ts'
import { planReplicas, type ReplicasPlan, type ScalingCode, type ScalingDecision } from './plan-replicas.ts'
import { createPresentRules } from './present-rules.ts'

export interface WatchedDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly calendar: Calendar
  /** What the service's demand will be within the horizon; null: unknown. */
  forecastOf(id: string, horizonMs: number): DemandForecast | null
  /** Learned time from a machine's order to its node; null: unknown. */
  machineLeadMs(): number | null
}

export interface Look {
  readonly plan: ReplicasPlan
  /** Monotonic ms until which only news can change anything; null: look again at the next tick. */
  readonly restUntilMs: number | null
}

export interface WatchedService {
  readonly log: DecisionLog
  readonly learned: LearnedTimes
  readonly objective: ObjectiveKeeper
  readonly decision: ScalingDecision | null
  /** Why a part of its rules has no effect, for people; else null. */
  readonly fault: string | null
  /** Mean load before the last step up. */
  meanBeforePercent: number | null
  /** Order → ready and warmed up, sampling included; with the machine when `withMachine`. Null: not learned. */
  leadMs(withMachine: boolean): number | null
  /** Whether its load is far above what it was when the service was last looked at. */
  hasJumped(instance: InstanceId): boolean
  /** The rules as they hold now. */
  rulesNow(rules: ScaleRules): ScaleRules
  look(spec: ServiceSpec, rules: ScaleRules, record: ServiceRecord, lastStepAgoMs: number | null, traffic: Traffic | null): Look
}

/** Before a start time is learned, and for very quick ones, an instance gets this long. */
const LEAST_PATIENCE_MS = 60_000
const PATIENCE_UNLEARNED_MS = 600_000
/** Agents report every 2 s, and we look every second. */
const REPORTING_MS = 3_000
const FORECAST_MS = 15_000
/** A horizon for forecasts while no start was seen. */
const UNLEARNED_LEAD_MS = 60_000
/** A rise of an instance's load that is looked at when it comes. */
const JUMP_PERCENT = 10
const UNHEALTHY: ReadonlySet<string> = new Set(['paused', 'failed', 'rolling-back'])
const RESTFUL: ReadonlySet<ScalingCode> = new Set<ScalingCode>(['steady', 'at-max', 'pinned', 'no-data'])

export function createWatchedService(deps: WatchedDeps, record: ServiceRecord): WatchedService {
  const { state, observed, clock } = deps
  const { id } = record
  const learned = createLearnedTimes(record.learned ?? null)
  const times = createInstanceTimes(learned)
  const objective = createObjectiveKeeper(record.learned?.shiftPercent ?? 0)
  const present = createPresentRules(deps.calendar, objective)
  const log = createDecisionLog()
  let window: { readonly key: string; readonly of: LoadWindow } | null = null
  let arrived = 0
  /** Loads when the service was last looked at. */
  let loads: ReadonlyMap<InstanceId, number> = new Map()
  let decision: ScalingDecision | null = null

  const windowFor = (rules: ScaleRules): LoadWindow => {
    const key = `${rules.windowMs} ${rules.downWindowMs}`
    if (window?.key !== key) window = { key, of: createLoadWindow(rules.windowMs, rules.downWindowMs) }
    return window.of
  }
  const leadMs = (withMachine: boolean): number | null => {
    const { startMs } = learned.view()
    if (startMs === null) return null
    return (leadOfOrder({ startMs, machineMs: withMachine ? deps.machineLeadMs() : null }) ?? 0) + REPORTING_MS
  }
  const rulesNow = (rules: ScaleRules) => present.at(rules, clock.now(), leadMs(true) ?? UNLEARNED_LEAD_MS)
  const readyStatus = (instance: InstanceRecord): InstanceObservation | null => {
    const seen = observed.instance(instance.id)
    return seen !== undefined && isRoutable(seen, observed.node(seen.nodeId)) ? seen : null
  }
  /** Reports are deltas: an unchanged load is not sent again, so what counts is that its node is heard. */
  const hears = (nodeId: NodeId): boolean => {
    const node = observed.node(nodeId)
    return node?.connected === true && node.liveness === 'live'
  }
  const unheardOf = (standings: readonly Standing[]): Unheard => {
    const silent = standings.flatMap(({ instance: { nodeId } }) => (nodeId === null || hears(nodeId) ? [] : [nodeId]))
    if (silent.length === 0) return 'none'
    return silent.every((nodeId) => observed.node(nodeId)?.liveness === 'lost') ? 'lost' : 'perhaps serving'
  }
  const reportOf = (seen: InstanceObservation): LoadReport =>
    hears(seen.nodeId) ? { loadPercent: seen.use?.loadPercent ?? null, demand: seen.use?.demand ?? null } : NO_REPORT
  const poolOf = (node: NodeId | null) => (node === null ? '' : (state.snapshot.get('node', node)?.pool ?? ''))

  return {
    log,
    learned,
    objective,
    get decision() {
      return decision
    },
    get fault() {
      return present.bounds?.fault ?? null
    },
    meanBeforePercent: null,
    leadMs,
    rulesNow,
    hasJumped(instance) {
      const before = loads.get(instance)
      const now = observed.instance(instance)?.use?.loadPercent ?? null
      return before !== undefined && now !== null && now >= before + JUMP_PERCENT
    },
    look(spec, rules, record, lastStepAgoMs, traffic) {
      const nowMs = clock.monotonicMs()
      const samples = windowFor(rules)
      const all = state.snapshot.instancesOf(id)
      const standings: Standing[] = []
      for (const instance of all)
        if (instance.goal === 'run')
          standings.push({
            instance,
            seen: readyStatus(instance),
            crashLooping: observed.instance(instance.id)?.crashLooping ?? false,
          })
      const ready = standings.flatMap(({ seen }) => (seen === null ? [] : [seen]))
      loads = new Map(ready.map((seen) => [seen.instance, seen.use?.loadPercent ?? 0]))
      times.observe(all, (instance) => observed.instance(instance)?.phase ?? null, poolOf, nowMs)
      arrived += traffic?.requests ?? 0
      if (samples.isDue(nowMs)) {
        samples.holdUntil(nowMs)
        samples.add(nowMs, ready.map(reportOf), arrived, unheardOf(standings))
        arrived = 0
      }
      // With a forecast the fleet has machines come ahead of demand; without one growth has to bridge their boot as well.
      const waitsForMachine = record.pending.length > 0 && rules.predict !== 'auto'
      const ownLeadMs = leadMs(waitsForMachine)
      const load = samples.summary(nowMs, ownLeadMs ?? 0)
      const now = rulesNow(rules)
      const horizonMs = horizonOf(leadMs(false) ?? UNLEARNED_LEAD_MS)
      const forecast = rules.predict === 'auto' ? deps.forecastOf(id, horizonMs) : null
      const excluded = countUseless(times.waitedMs, learned.view().startMs, standings, nowMs)
      const readySlots = new Set(ready.map((seen) => slotOf(seen.instance))).size
      const last = record.lastScale
      const plan = planReplicas({
        serviceId: id,
        rules: now,
        boundsNote: present.bounds?.note ?? null,
        forecast,
        wanted: record.desired,
        pinned: record.pinned,
        excluded,
        ready: readySlots,
        load,
        leadMs: ownLeadMs ?? 0,
        lastStep: last === null || lastStepAgoMs === null ? null : { from: last.from, to: last.to, agoMs: lastStepAgoMs },
        rolloutUnhealthy: record.rollout !== null && UNHEALTHY.has(record.rollout.phase),
        memoryLed: isMemoryLed(spec, ready),
        meanBeforePercent: this.meanBeforePercent,
      })
      decision = plan.decision
      log.add(plan.decision, clock.now())
      if (rules.objective !== undefined)
        objective.observe({
          atMs: nowMs,
          rules,
          objectiveMs: rules.objective.latencyP95Ms,
          answerTimes: traffic?.answerTimes ?? null,
          meanPercent: load.meanPercent,
          thresholdPercent: plan.decision.thresholdPercent ?? now.highPercent,
          isSteady: times.starting === 0 && readySlots >= (record.pinned ?? record.desired),
          lastStepAgoMs,
          atMost: (record.pinned ?? record.desired) >= now.max,
        })
      const isResting =
        RESTFUL.has(plan.decision.code) &&
        plan.actions.length === 0 &&
        times.starting === 0 &&
        rules.objective === undefined &&
        samples.isConstant(nowMs)
      if (!isResting) return { plan, restUntilMs: null }
      const again = rules.predict === 'auto' ? nowMs + FORECAST_MS : Number.POSITIVE_INFINITY
      const endMs = present.bounds?.untilMs ?? null
      return { plan, restUntilMs: endMs === null ? again : Math.min(again, nowMs + Math.max(1, endMs - clock.now())) }
    },
  }
}

const NO_REPORT: LoadReport = { loadPercent: null, demand: null }

interface Standing {
  readonly instance: InstanceRecord
  /** Its status while it is routable. */
  readonly seen: InstanceObservation | null
  readonly crashLooping: boolean
}

/** Slots in which nothing useful will come: crash-looping, or not ready long after others were. Waiting for a place is no fault. */
function countUseless(
  waitedMs: (instance: string, nowMs: number) => number,
  learnedMs: number | null,
  standings: readonly Standing[],
  nowMs: number,
): number {
  const patienceMs = learnedMs === null ? PATIENCE_UNLEARNED_MS : Math.max(LEAST_PATIENCE_MS, 2 * learnedMs)
  let anyUseless = false
  const isUseless = ({ instance, seen, crashLooping }: Standing) =>
    crashLooping || (seen === null && waitedMs(instance.id, nowMs) > patienceMs)
  for (const standing of standings) anyUseless ||= isUseless(standing)
  if (!anyUseless) return 0
  const useless = new Set<number>()
  const useful = new Set<number>()
  for (const standing of standings) (isUseless(standing) ? useless : useful).add(slotOf(standing.instance.id))
  let count = 0
  for (const slot of useless) if (!useful.has(slot)) count += 1
  return count
}

/** Memory is what the load is: the only source, or the one that makes the load that is reported. */
function isMemoryLed({ unit }: ServiceSpec, ready: readonly InstanceObservation[]): boolean {
  if (!unit.load.some((source) => source.kind === 'memory')) return false
  if (unit.load.every((source) => source.kind === 'memory')) return true
  const limit = unit.containers.reduce((sum, { limits }) => sum + (limits.memoryBytes ?? 0), 0) || unit.reservations.memoryBytes
  if (limit <= 0) return false
  let load = 0
  let memory = 0
  for (const { use } of ready) {
    load += use?.loadPercent ?? 0
    memory += Math.min(100, (100 * (use?.memoryBytes ?? 0)) / limit)
  }
  return load > 0 && memory >= 0.98 * load
}

function slotOf(id: string): number {
  return parseInstanceId(id)?.slot ?? 0
}
