/**
 * Measures the load of every service that scales, once a second, and moves its wanted count by the rule of plan-replicas. A service
 * that rests (nothing new, nothing that time moves) costs nothing; one that cannot be decided about stops no other. Windows are in memory only: after a start it holds until they are
 * filled again, and never takes away before. Learned times and thresholds are kept with the service whenever a step is written.
 */
import { createCalendar } from '../../shared/calendar.ts'
import { type Clock, sleep } from '../../shared/clock.ts'
import { InvariantError, UnavailableError } from '../../shared/errors.ts'
import type { EventDraft } from '../../shared/model/event.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import { type ServiceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import { countTraffic, type TrafficCounts } from '../history/traffic-counts.ts'
import { createAges } from '../services/ages.ts'
import type { AppRecord, ServiceRecord } from '../state/objects.ts'
import { createIsolation } from '../state/isolation.ts'
import type { Observed } from '../state/observed.ts'
import { commitRoom, jsonBytes } from '../state/commit-room.ts'
import type { State } from '../state/state.ts'
import { createAttention } from './attention.ts'
import type { DecisionRecord } from './decision-log.ts'
import type { LearnedView } from './learned-times.ts'
import type { ObjectiveView } from './objective-book.ts'
import type { ScaleAction, ScalingDecision } from './plan-replicas.ts'
import type { ScalingFigures } from './scaling-metrics.ts'
import { createWatchedService, type WatchedService } from './watched-service.ts'

export interface ScalingLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  /** What a service's demand will be within the horizon; absent or null: unknown. Called often, must be cheap. */
  forecastOf?(id: ServiceId, horizonMs: number): DemandForecast | null
  /** Learned time from a machine's order to its node; absent or null: unknown. */
  machineLeadMs?(): number | null
}

export interface ScalingLoop extends Loop {
  /** The newest decision about a service; null when it does not scale or none was made yet. */
  decision(id: ServiceId): ScalingDecision | null
  decisions(): Iterable<ScalingDecision>
  /** What `/metrics` shows, per service. */
  figures(): Iterable<ScalingFigures>
  /** The last changes of decision, newest first; empty when it does not scale. */
  decisionsOf(id: ServiceId): readonly DecisionRecord[]
  /** Steps of the last hour that went the other way than the step before. */
  turnsPerHour(id: ServiceId): number
  /** Learned 90th percentile of the time from placement to readiness, ms; null until it is known. */
  startTimeMs(id: ServiceId): number | null
  /** All that was learned, of one pool or the largest of the pools. */
  learned(id: ServiceId, pool?: string): LearnedView | null
  /** How long an instance takes that is ordered now, with the machine it may need, ms; null until it is known. */
  leadMs(id: ServiceId): number | null
  /** The rules as they hold now: the bounds of its schedule, the thresholds that its objective moved. null: it does not scale. */
  rulesNow(id: ServiceId): ScaleRules | null
  /** How its objective is kept; null without one. */
  objective(id: ServiceId): ObjectiveView | null
}

const TICK_MS = 1_000
/** A jump of load moves the next tick forward, to this long after the last one at the earliest. */
const EARLY_TICK_MS = 500
/** Events about objectives in one commit. */
const NEWS_AT_ONCE = 200
/** After so long other work of the coordinator gets its turn. */
const TURN_MS = 25

interface Step {
  readonly record: ServiceRecord
  readonly action: ScaleAction
  readonly decision: ScalingDecision
}

interface News {
  readonly id: ServiceId
  readonly kind: 'kept' | 'missed'
  readonly objectiveMs: number
}

interface Found {
  readonly app: AppRecord
  readonly spec: ServiceSpec
  readonly rules: ScaleRules
}

export function createScalingLoop(deps: ScalingLoopDeps): ScalingLoop {
  const { state, observed, clock } = deps
  const logger = deps.logger.with({ loop: 'scaling' })
  const watched = new Map<ServiceId, WatchedService>()
  /** Where a service stands in its app's spec; right as long as the app record is the same. */
  const found = new Map<ServiceId, Found>()
  const ages = createAges(clock)
  const attention = createAttention(state, observed)
  const isolation = createIsolation({ state, clock, logger, part: 'scaling' })
  let traffic: TrafficCounts | null = null
  let lastTickMs = Number.NEGATIVE_INFINITY
  let unsubscribe = () => {}
  const watchDeps = {
    state,
    observed,
    clock,
    calendar: createCalendar(),
    forecastOf: (id: ServiceId, horizonMs: number) => deps.forecastOf?.(id, horizonMs) ?? null,
    machineLeadMs: () => deps.machineLeadMs?.() ?? null,
  }

  const loop = createLoop({
    name: 'scaling',
    clock,
    logger,
    async run(signal) {
      const tooEarlyMs = lastTickMs + EARLY_TICK_MS - clock.monotonicMs()
      if (tooEarlyMs > 0) return clock.now() + tooEarlyMs
      lastTickMs = clock.monotonicMs()
      const steps: Step[] = []
      const news: News[] = []
      let turnMs = clock.monotonicMs()
      for (const id of attention.due(turnMs)) {
        if (clock.monotonicMs() - turnMs >= TURN_MS) {
          await sleep(clock, 0, signal)
          turnMs = clock.monotonicMs()
        }
        const looked = isolation.attempt(id, () => look(id))
        traffic?.resetOne(id)
        if (looked?.step) steps.push(looked.step)
        if (looked?.news) news.push(looked.news)
      }
      traffic?.forgetGone()
      for (let rest: readonly Step[] = steps; rest.length > 0 && !signal.aborted; ) rest = rest.slice(await commit(rest))
      for (let rest: readonly News[] = news; rest.length > 0 && !signal.aborted; ) rest = rest.slice(await tell(rest))
      return clock.now() + TICK_MS
    },
  })

  function find(id: ServiceId): Found | null {
    const [appName = '', name = ''] = id.split('/')
    const app = state.snapshot.get('app', appName)
    const known = found.get(id)
    if (known !== undefined && known.app === app) return known
    found.delete(id)
    const spec = app?.removing === false ? app.spec.services.find((service) => service.name === name) : undefined
    if (app === undefined || spec === undefined || spec.scale === null || spec.mode === 'global' || spec.job !== undefined)
      return null
    const here = { app, spec, rules: spec.scale }
    found.set(id, here)
    return here
  }

  function forget(id: ServiceId): void {
    attention.forget(id)
    watched.delete(id)
    found.delete(id)
  }

  function look(id: ServiceId): { readonly step: Step | null; readonly news: News | null } | null {
    const here = find(id)
    const record = state.snapshot.get('service', id)
    if (here === null || record === undefined) {
      // A service whose record is not there yet is looked at again with the next tick.
      if (here === null) forget(id)
      return null
    }
    const step = consider(here, record)
    const service = watched.get(id)
    if (service?.fault) isolation.failed(id, service.fault)
    const objectiveMs = here.rules.objective?.latencyP95Ms
    const kind = objectiveMs === undefined ? null : (service?.objective.news ?? null)
    return { step, news: kind === null || objectiveMs === undefined ? null : { id, kind, objectiveMs } }
  }

  function consider({ spec, rules }: Found, record: ServiceRecord): Step | null {
    let service = watched.get(record.id)
    if (service === undefined) {
      service = createWatchedService(watchDeps, record)
      watched.set(record.id, service)
    }
    const before = service.decision?.code
    const last = record.lastScale
    const agoMs = last === null ? null : ages.of(`${record.id} ${last.atMs}`, last.atMs)
    const { plan, restUntilMs } = service.look(spec, rules, record, agoMs, traffic?.of(record.id) ?? null)
    if (before !== plan.decision.code && plan.decision.code === 'memory-hold')
      logger.warn('memory does not divide among replicas, holding', { serviceId: record.id })
    if (restUntilMs !== null) attention.rest(record.id, restUntilMs)
    const [action] = plan.actions
    return action === undefined ? null : { record, action, decision: plan.decision }
  }

  /** As many steps, from the first on, as one commit holds; answers how many were dealt with. */
  async function commit(steps: readonly Step[]): Promise<number> {
    const change = state.change()
    const room = commitRoom()
    const taken: Step[] = []
    let size = 0
    for (const step of steps) {
      const { record, action, decision } = step
      // The record of this very moment: an earlier batch took time to be written.
      const present = state.snapshot.get('service', record.id)
      const service = watched.get(record.id)
      if (present === undefined || service === undefined || present.desired !== action.from || present.pinned !== null) {
        size += 1
        continue
      }
      const atMs = clock.now()
      const scaled: ServiceRecord = {
        ...present,
        desired: action.to,
        lastScale: { atMs, from: action.from, to: action.to, reason: action.reason },
        learned: { ...service.learned.view(), shiftPercent: service.objective.shiftPercent },
      }
      const { n, ready, demandPercent, thresholdPercent, code } = decision
      const event: EventDraft = {
        actor: 'scaling',
        type: 'service.scaled',
        subject: record.id,
        message: `${action.from} → ${action.to}: ${action.reason}`,
        severity: 'info',
        data: { from: action.from, to: action.to, code, n, ready, demandPercent, thresholdPercent },
      }
      if (!room.take(1, jsonBytes(scaled) + jsonBytes(event))) {
        if (taken.length > 0) break
        isolation.failed(record.id, new InvariantError('its record does not fit into a commit'))
        size += 1
        continue
      }
      size += 1
      taken.push(step)
      change.put('service', record.id, scaled).event(event)
    }
    const outcome = await state.commit(change)
    if (outcome.kind === 'conflict') return size
    if (outcome.kind !== 'committed') throw new UnavailableError(`the store did not take a scaling step: ${outcome.detail}`)
    for (const { record, action, decision } of taken) {
      const service = watched.get(record.id)
      if (service !== undefined && action.to > action.from) service.meanBeforePercent = decision.load.meanPercent
      service?.log.stepped(action.from, action.to, clock.monotonicMs())
      if (record.lastScale !== null) ages.forget(`${record.id} ${record.lastScale.atMs}`)
    }
    return size
  }

  /** What could not be written is told with the next tick. */
  async function tell(all: readonly News[]): Promise<number> {
    const change = state.change()
    const news = all.slice(0, NEWS_AT_ONCE)
    for (const { id, kind, objectiveMs } of news) {
      const p95Ms = watched.get(id)?.objective.view(objectiveMs).p95Ms ?? null
      change.event({
        actor: 'scaling',
        type: `service.objective-${kind}`,
        subject: id,
        message: `The objective (95 % of answers within ${objectiveMs} ms) is ${kind}: p95 ${Math.round(p95Ms ?? 0)} ms.`,
        severity: kind === 'missed' ? 'warning' : 'info',
        data: { objectiveMs, p95Ms },
      })
    }
    const outcome = await state.commit(change)
    if (outcome.kind !== 'committed')
      throw new UnavailableError(`the store did not take an event about objectives: ${outcome.kind}`)
    for (const { id, kind } of news) watched.get(id)?.objective.wasTold(kind)
    return news.length
  }

  const rulesOf = (id: ServiceId): ScaleRules | null => find(id)?.rules ?? null

  return {
    name: loop.name,
    start() {
      traffic = countTraffic(observed, (id) => state.snapshot.get('service', id) !== undefined)
      attention.start()
      // After `attention`, which must know of the news first.
      unsubscribe = observed.onChange(({ instances }) => {
        for (const id of instances) if (watched.get(serviceIdOf(id))?.hasJumped(id)) return loop.poke()
      })
      loop.start()
    },
    poke: loop.poke,
    async stop() {
      unsubscribe()
      await loop.stop()
      attention.stop()
      traffic?.stop()
    },
    decision: (id) => watched.get(id)?.decision ?? null,
    *decisions() {
      for (const service of watched.values()) if (service.decision !== null) yield service.decision
    },
    *figures() {
      for (const [service, { decision }] of watched)
        yield {
          service,
          directionChangesPerHour: this.turnsPerHour(service),
          thresholdPercent: decision?.thresholdPercent ?? null,
          parts: decision?.load.parts ?? null,
          objective: this.objective(service),
        }
    },
    decisionsOf: (id) => watched.get(id)?.log.records() ?? [],
    turnsPerHour: (id) => watched.get(id)?.log.turnsPerHour(clock.monotonicMs()) ?? 0,
    startTimeMs: (id) => watched.get(id)?.learned.view().startMs ?? null,
    learned: (id, pool) => watched.get(id)?.learned.view(pool) ?? null,
    leadMs: (id) => watched.get(id)?.leadMs(true) ?? null,
    rulesNow(id) {
      const rules = rulesOf(id)
      return rules && (watched.get(id)?.rulesNow(rules) ?? rules)
    },
    objective(id) {
      const objectiveMs = rulesOf(id)?.objective?.latencyP95Ms
      return objectiveMs === undefined ? null : (watched.get(id)?.objective.view(objectiveMs) ?? null)
    },
  }
}
