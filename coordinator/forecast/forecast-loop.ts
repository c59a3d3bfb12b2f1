/**
 * Forecasts the demand of every service that scales with `predict: auto`. It learns from the history: at the start from what is kept
 * of the last weeks, here or elsewhere (lessons.ts), in pieces so that nothing else waits; then once a minute from the minute that has
 * ended. Says what it expects,
 * how well that did, and records the expectation for the moment it is about.
 */
import type { Clock } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import { type ServiceId, serviceId } from '../../shared/model/identity.ts'
import type { Past } from '../history/past.ts'
import type { History, Measure } from '../history/series.ts'
import { createIsolation } from '../state/isolation.ts'
import type { State } from '../state/state.ts'
import { type CivilTime, createCivilTime } from './civil-time.ts'
import { createDemandForecaster, type DemandForecaster } from './demand-forecaster.ts'
import type { Standing } from './contest.ts'
import type { DemandForecast } from './forecaster.ts'
import { horizonOf, SAMPLING_MS } from './horizon.ts'
import { createLessons, type Lesson, type LessonSpan } from './lessons.ts'

export interface ForecastLoopDeps {
  readonly state: State
  readonly history: Pick<History, 'query' | 'record'>
  /** Knows more of the last weeks than the history does. Absent: nobody does. */
  readonly past?: Past
  readonly clock: Clock
  readonly logger: Logger
  /** IANA zone in which demand repeats, for services whose schedules name none. */
  readonly timeZone: string
  /** How long it takes from a wish for one more instance to a ready one, ms: learned, with a machine's boot where one is needed; null: not yet known. */
  leadTimeMs(id: ServiceId): number | null
}

export interface ForecastLoop extends Loop {
  /**
   * Demand of the service over the horizon (≤ 60 min; longer ones are cut), percent of one instance. It begins with the minute after
   * the last that was observed and, however long ago that was, reaches to now + the lead that the horizon is for (`horizonOf`). null: it
   * does not scale by forecast, its history is still being read, or no demand was measured for 15 minutes. Cheap: computed once a minute
   * per service and horizon.
   */
  forecastOf(id: ServiceId, horizonMs: number): DemandForecast | null
  /** Forecast at the service's own horizon: learned lead time + sampling interval. */
  current(id: ServiceId): DemandForecast | null
  /** How each forecaster did at that horizon; empty while nothing was observed. */
  standings(id: ServiceId): readonly Standing[]
  /** Services that are forecast, with their current forecasts. */
  all(): Iterable<readonly [ServiceId, DemandForecast]>
}

const STEP_MS = 60_000
const HOUR_MS = 60 * STEP_MS
const DAY_MS = 24 * HOUR_MS
export const LONGEST_HORIZON_MS = HOUR_MS
/** Before a lead time is learned: an instance on a node that is there starts in less, and a cloud's usual machine boots in less. */
const UNLEARNED_LEAD_MS = 3 * STEP_MS
/** The history keeps minutes for 8 days and quarters of an hour beyond; four weeks of weekdays tell what is usual. */
const MINUTES_KEPT_MS = 8 * DAY_MS
const COARSE_STEP_MS = 15 * STEP_MS
const LEARNED_MS = 28 * DAY_MS
/**
 * Read at once: about 5 ms of work. Other loops get their turn between runs, so that neither a start with thousands of services nor the
 * end of a minute holds them up.
 */
const PIECE_MS = 6 * HOUR_MS
/** In what one minute of one service costs. */
const WORK_OF_PIECE = 50
const WORK_PER_RUN = 200
/** The last samples of a minute are written shortly after it. */
const SETTLE_MS = 3_000
const STALE_MS = 15 * STEP_MS
/** How long until a lesson that was not whole is asked for again. */
const RELEARN_MS = 15 * STEP_MS

interface Series {
  readonly key: string
  readonly forecaster: DemandForecaster
  /** End of what was fed, epoch ms; every minute before it was observed, or is missing. */
  fedMs: number
  /** What is still to be fed before the history is; null: nothing. */
  lesson: Lesson | null
  /** false: who knows more did not answer when it began. */
  readonly isWhole: boolean
  /** When it began, or was last refused more; monotonic. */
  learnedMs: number
  /** The last minute that had demand. */
  demandAtMs: number
  readonly byHorizon: Map<number, DemandForecast | null>
}

export function createForecastLoop(deps: ForecastLoopDeps): ForecastLoop {
  const { state, history, clock } = deps
  const services = new Map<ServiceId, Series>()
  /** Zones of `services`, by name in lower case: names are the same in any spelling, and each zone is costly. */
  const zones = new Map<string, CivilTime>()
  const isolation = createIsolation({ state, clock, logger: deps.logger, part: 'forecast' })
  const lessons =
    deps.past === undefined
      ? null
      : createLessons({ past: deps.past, onReady: () => loop.poke(), onFailed: (id, error) => isolation.failed(id, error) })

  const loop = createLoop({
    name: 'forecast',
    clock,
    logger: deps.logger.with({ loop: 'forecast' }),
    maxSleepMs: STEP_MS,
    async run() {
      const endMs = Math.floor((clock.now() - SETTLE_MS) / STEP_MS) * STEP_MS
      const wanted = wantedServices()
      for (const id of services.keys()) if (!wanted.has(id)) services.delete(id)
      lessons?.keepOnly(wanted)
      forgetZones()
      let work = WORK_PER_RUN
      for (const [id, rules] of wanted) {
        if (work <= 0) return clock.now()
        const room = work
        work -= isolation.attempt(id, () => bringOn(id, rules, endMs, room)) ?? 1
      }
      return work <= 0 ? clock.now() : endMs + STEP_MS + SETTLE_MS
    },
  })

  /** Feeds one service what is new, at most `room` of work. Returns the work that it took. */
  const bringOn = (id: ServiceId, rules: ScaleRules, endMs: number, room: number): number => {
    const { series, isNew } = seriesOf(id, rules, endMs)
    if (series === null) return 0
    let work = isNew ? WORK_OF_PIECE : 0
    if (series.fedMs >= endMs) return work
    while (series.fedMs < endMs && work < room) {
      work += endMs - series.fedMs > HOUR_MS ? WORK_OF_PIECE : 1
      feed(id, series, Math.min(endMs, series.fedMs + PIECE_MS))
    }
    if (series.fedMs >= endMs) publish(id)
    return work
  }

  const wantedServices = () => {
    const wanted = new Map<ServiceId, ScaleRules>()
    for (const app of state.snapshot.all('app').values())
      if (!app.removing)
        for (const { name, mode, scale } of app.spec.services)
          if (scale?.predict === 'auto' && mode !== 'global') wanted.set(serviceId(app.name, name), scale)
    return wanted
  }

  const forgetZones = () => {
    const used = new Set([...services.values()].map((series) => series.key))
    for (const zone of zones.keys()) if (!used.has(zone)) zones.delete(zone)
  }

  /** null: what it begins with is being read. */
  const seriesOf = (
    id: ServiceId,
    rules: ScaleRules,
    endMs: number,
  ): { readonly series: Series | null; readonly isNew: boolean } => {
    const zone = (rules.schedules?.[0]?.timeZone ?? deps.timeZone).toLowerCase()
    const found = services.get(id)
    // After a longer sleep than minutes are kept, or a clock that leapt, reading anew is quicker than stepping through.
    const known = found?.key === zone && endMs - found.fedMs <= MINUTES_KEPT_MS ? found : null
    const mayLearnMore = lessons !== null && known?.isWhole === false && clock.monotonicMs() - known.learnedMs >= RELEARN_MS
    if (known !== null && !mayLearnMore) return { series: known, isNew: false }
    const recentMs = Math.floor((endMs - MINUTES_KEPT_MS) / COARSE_STEP_MS) * COARSE_STEP_MS
    const span = { fromMs: endMs - LEARNED_MS, usualStepMs: COARSE_STEP_MS, minutesFromMs: recentMs, untilMs: endMs }
    const lesson = lessons === null ? ownLesson(id, span) : lessons.take(id, { ...span, isAgain: known !== null })
    if (lesson === null) return { series: known, isNew: false }
    if (known !== null && !lesson.isWhole) {
      known.learnedMs = clock.monotonicMs()
      return { series: known, isNew: false }
    }
    const civil = zones.get(zone) ?? createCivilTime(zone)
    zones.set(zone, civil)
    const forecaster = createDemandForecaster({ stepMs: STEP_MS, timeZone: civil, horizonMs: LONGEST_HORIZON_MS })
    for (const { atMs, value } of lesson.usual) if (atMs < recentMs) forecaster.learnUsual(atMs, COARSE_STEP_MS, value)
    const series: Series = {
      key: zone,
      forecaster,
      fedMs: Math.max(recentMs, lesson.usual[0]?.atMs ?? endMs - COARSE_STEP_MS),
      lesson: lessons === null ? null : lesson,
      isWhole: lesson.isWhole,
      learnedMs: clock.monotonicMs(),
      demandAtMs: Number.NEGATIVE_INFINITY,
      byHorizon: new Map(),
    }
    services.set(id, series)
    return { series, isNew: true }
  }

  /** Old history is read at once, being coarse; its minutes are at hand when they are fed. */
  const ownLesson = (id: ServiceId, { fromMs, untilMs, usualStepMs }: Omit<LessonSpan, 'isAgain'>): Lesson => ({
    usual: query(id, fromMs, untilMs, usualStepMs),
    minutes: [],
    untilMs,
    isWhole: true,
  })

  const query = (id: ServiceId, fromMs: number, toMs: number, stepMs: number) =>
    history.query({ subject: `service ${id}`, measure: 'demand' satisfies Measure, fromMs, toMs, stepMs })

  const feed = (id: ServiceId, series: Series, wantedMs: number) => {
    if (series.lesson !== null && series.fedMs >= series.lesson.untilMs) series.lesson = null
    const { lesson, fedMs } = series
    const toMs = Math.min(wantedMs, lesson?.untilMs ?? wantedMs)
    const points = lesson?.minutes.filter(({ atMs }) => atMs >= fedMs && atMs < toMs) ?? query(id, fedMs, toMs, STEP_MS)
    for (const { atMs, value } of points) {
      series.forecaster.observe(atMs, value)
      series.demandAtMs = atMs
    }
    // A minute without demand has passed all the same: what comes next is one minute further on.
    if (series.demandAtMs >= 0) series.forecaster.observe(toMs - STEP_MS, null)
    series.fedMs = toMs
    series.byHorizon.clear()
  }

  const forecastOf = (id: ServiceId, horizonMs: number): DemandForecast | null => {
    const series = services.get(id)
    // A wall clock that was set back is no better than silence.
    if (series === undefined || Math.abs(clock.now() - series.demandAtMs) > STALE_MS) return null
    // A horizon allows for one minute since the last sample; what has passed beyond that is added, or its end would come too soon.
    const lateMs = Math.max(0, clock.now() - series.fedMs - SAMPLING_MS)
    const steps = Math.max(1, Math.ceil(Math.min(horizonMs + lateMs, LONGEST_HORIZON_MS) / STEP_MS))
    let forecast = series.byHorizon.get(steps)
    if (forecast === undefined) {
      forecast = series.forecaster.forecast(steps * STEP_MS)
      series.byHorizon.set(steps, forecast)
    }
    return forecast
  }

  const horizonFor = (id: ServiceId) => horizonOf(deps.leadTimeMs(id) ?? UNLEARNED_LEAD_MS)
  const current = (id: ServiceId) => forecastOf(id, horizonFor(id))

  const publish = (id: ServiceId) => {
    const forecast = current(id)
    if (forecast === null) return
    const last = forecast.expected.length
    history.record(
      { subject: `service ${id}`, measure: 'forecast' },
      forecast.atMs + last * STEP_MS,
      forecast.expected[last - 1] ?? Number.NaN,
    )
  }

  return {
    name: loop.name,
    start: loop.start,
    poke: loop.poke,
    stop: loop.stop,
    forecastOf,
    current,
    standings: (id) => services.get(id)?.forecaster.standings(horizonFor(id)) ?? [],
    *all() {
      for (const id of services.keys()) {
        const forecast = isolation.attempt(id, () => current(id))
        if (forecast !== null) yield [id, forecast]
      }
    },
  }
}
