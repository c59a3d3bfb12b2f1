/**
 * How many instances a service wants, from the load its instances report (design §8.1). Pure; the loop measures and commits.
 * Loads are in percent of one instance: a demand of 250 is two and a half full instances' worth.
 */
import type { ScaleRules } from '../../shared/model/app.ts'
import type { Plan } from '../../shared/plan.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import type { UseParts } from './request-cost.ts'

/** What the load window knows now. */
export interface LoadSummary {
  /** Mean over the window of the per-sample sum of loads of ready instances; null without data. A missing load counts as 0. */
  readonly demandPercent: number | null
  /** Mean over the window of the mean load of the instances that report now; null without data. */
  readonly meanPercent: number | null
  /** Since the number of reporting instances last rose, ms: `meanPercent` counts only what came after. */
  readonly settledMs: number
  /** How much of the window is filled, ms. */
  readonly coveredMs: number
  /** The largest demand seen over the stabilization window; null without data. */
  readonly peakDemandPercent: number | null
  /** For how long every ready instance has reported, without a gap, up to now, ms. */
  readonly completeMs: number
  /** Every ready instance tells its backlog: a full instance does not hide demand. */
  readonly backlogKnown: boolean
  /** The least sum of loads within the last moments (a fifteenth of the window, at least 2 s); null when a report was missing in them. */
  readonly sustainedPercent: number | null
  /** Demand that the requests now arriving make, by what one cost before the instances were full; null while that is not known. */
  readonly arrivalPercent: number | null
  /** What an instance uses when idle and what a request costs (V20); null while they cannot be told apart. For people. */
  readonly parts: UseParts | null
  /** By how much the sum of loads has been growing steadily, percent per second; 0 when it has not. */
  readonly growthPercentPerS: number
}

export interface ReplicasInput {
  readonly serviceId: string
  /** With the bounds of the present schedule and the threshold of the objective already in them. */
  readonly rules: ScaleRules
  /** Why the bounds are not those of the app file, for people; null when they are. */
  readonly boundsNote: string | null
  /** What the demand will be; counts only when it is trusted. null: none, or `predict: off`. */
  readonly forecast: DemandForecast | null
  /** Wanted now, with those that are of no use. */
  readonly wanted: number
  readonly pinned: number | null
  /** Of these, how many crash-loop or take more than twice their learned time to start. */
  readonly excluded: number
  /** Ready and warmed up. */
  readonly ready: number
  readonly load: LoadSummary
  /** How long an instance takes that is ordered now (learned, order to ready and warmed up), ms; 0 while it is not known. */
  readonly leadMs: number
  /** The last step of scaling, and how long ago it was by monotonic time; null: none is known. */
  readonly lastStep: { readonly from: number; readonly to: number; readonly agoMs: number } | null
  readonly rolloutUnhealthy: boolean
  /** Memory makes the load, which hardly divides among replicas. `meanBeforePercent`: mean before the last step up. */
  readonly memoryLed: boolean
  readonly meanBeforePercent: number | null
}

export type ScalingCode =
  | 'pinned'
  | 'bounds'
  | 'no-data'
  | 'filling-window'
  | 'none-healthy'
  | 'memory-hold'
  | 'up'
  | 'saturated'
  | 'forecast'
  | 'forecast-hold'
  | 'at-max'
  | 'steady'
  | 'missing-data'
  | 'rollout-unhealthy'
  | 'stabilizing'
  | 'down'

/** One decision with all it was made from: kept, shown and explained. */
export interface ScalingDecision {
  readonly serviceId: string
  readonly code: ScalingCode
  /** One sentence with the numbers. */
  readonly reason: string
  /** Wanted before the decision, and after it. */
  readonly wanted: number
  readonly wish: number
  /** `n`: wanted less excluded. */
  readonly n: number
  readonly ready: number
  readonly excluded: number
  readonly demandPercent: number | null
  /** Upper threshold at `n`, percent. */
  readonly thresholdPercent: number | null
  readonly load: LoadSummary
}

export interface ScaleAction {
  readonly kind: 'scale'
  readonly from: number
  readonly to: number
  readonly reason: string
}

export interface ReplicasPlan extends Plan<ScaleAction> {
  readonly decision: ScalingDecision
}

/** From this mean load on instances are full, and what they could serve beyond that is not visible. */
const SATURATED_PERCENT = 98
/** Distance to the upper threshold that a step down must keep, so that it does not come back at once. */
const DOWN_MARGIN = 0.85
/** Within so many windows after a step, being full again means that the step brought no relief. */
const NO_RELIEF_WINDOWS = 10
/** A guess may ask for so many times the ready instances, as nobody knows yet what they will bring. */
const MOST_BY_FULL = 3
/** Arrivals beyond what fills the ready instances by this factor come from callers that do not wait: they show the demand. */
const OPEN_ARRIVALS = 1.1
/** At most so many times the ready instances are asked for because of arrivals: retries of the same request count as well. */
const MOST_BY_ARRIVALS = 8
/** Growth is carried on to at most so many times the present demand. */
const MOST_BY_GROWTH = 2
/** And no further ahead than so many times the stabilization window. */
const GROWTH_REACH = 2

/** Load in percent above which `n` instances are too few: explicit steps, else from `low` at one towards `high`. */
export function upperThreshold(rules: ScaleRules, n: number): number {
  if (rules.steps.length > 0) {
    let percent = rules.steps[0]?.percent ?? rules.highPercent
    for (const step of rules.steps) if (step.replicas <= n) percent = step.percent
    return percent
  }
  return rules.highPercent - (rules.highPercent - rules.lowPercent) / Math.max(1, n)
}

/** Decides one service. At most one action; the decision says why, also when nothing is done. */
export function planReplicas(input: ReplicasInput): ReplicasPlan {
  const { rules, wanted, load } = input
  const least = Math.max(1, rules.min)
  const most = Math.max(least, rules.max)
  const excluded = Math.min(Math.max(0, input.excluded), wanted)
  const n = wanted - excluded
  const decide = (code: ScalingCode, wish: number, text: string): ReplicasPlan => {
    const to = Math.min(most, Math.max(least, wish))
    const decision: ScalingDecision = {
      serviceId: input.serviceId,
      code,
      reason: text,
      wanted,
      wish: input.pinned === null ? to : input.pinned,
      n,
      ready: input.ready,
      excluded,
      demandPercent: load.demandPercent,
      thresholdPercent: n > 0 ? upperThreshold(rules, n) : null,
      load,
    }
    const actions: ScaleAction[] =
      input.pinned !== null || to === wanted ? [] : [{ kind: 'scale', from: wanted, to, reason: text }]
    return { actions, reasons: [{ subject: input.serviceId, code, text }], wakeAtMs: null, decision }
  }

  if (input.pinned !== null) return decide('pinned', wanted, `pinned to ${input.pinned}`)
  if (!(wanted >= least && wanted <= most))
    return decide(
      'bounds',
      Number.isFinite(wanted) ? wanted : least,
      `kept within ${least} to ${most}${input.boundsNote === null ? '' : ` (${input.boundsNote})`}`,
    )
  const demand = load.demandPercent
  if (demand === null || !Number.isFinite(demand))
    return decide('no-data', wanted, `${input.ready} ready instances, none has reported a load: holding`)
  if (n === 0) return decide('none-healthy', wanted, 'every instance crash-loops or does not start: more would not help')
  if (load.coveredMs < rules.windowMs / 2)
    return decide(
      'filling-window',
      wanted,
      `loads of ${seconds(load.coveredMs)} of ${seconds(rules.windowMs)} are known yet: holding`,
    )

  const threshold = upperThreshold(rules, n)
  const numbers = `demand ${round(demand)} % over ${n} = ${round(demand / n)} %, threshold ${round(threshold)} %`
  const up = wishUp(input, n, demand, most)
  if (up !== null) {
    if (wanted >= most) return decide('at-max', wanted, `${numbers}; already at the most, ${most}`)
    if (isMemoryStuck(input)) return decide('memory-hold', wanted, `${numbers}; the last step did not lower memory use: holding`)
    // Those that are of no use are replaced in number, but never more of them than of the others: no run to max on a crash loop.
    const wish = up.n + Math.min(excluded, up.n)
    if (wish > wanted) return decide(up.code, wish, reasonOf(up, input, n, numbers))
  }
  const ahead = predictedCount(input, most)
  if (ahead !== null && ahead > n && wanted < most)
    return decide('forecast', ahead + Math.min(excluded, ahead), forecastText(input))
  return planDown(input, n, Math.max(least, Math.min(ahead ?? 0, n)), least, numbers, decide)
}

/** Instances that carry the forecast's peak; null without a trusted forecast. */
function predictedCount({ rules, forecast }: ReplicasInput, most: number): number | null {
  if (forecast === null || !forecast.isTrusted || !Number.isFinite(forecast.peak)) return null
  return smallestFor(rules, forecast.peak, 1, most)
}

function forecastText({ forecast }: ReplicasInput): string {
  if (forecast === null) return ''
  const minutes = Math.max(1, Math.round(forecast.horizonMs / 60_000))
  return `forecast ${round(forecast.peak)} % in ${minutes} min by ${forecast.method}`
}

interface UpWish {
  readonly n: number
  readonly code: 'up' | 'saturated'
  /** The demand it was made for, and how that is known. */
  readonly demandPercent: number
  readonly by: 'mean' | 'sustained' | 'growth' | 'arrivals' | 'full'
}

/** The number of useful instances that the load asks for, if more than `n`. */
function wishUp(input: ReplicasInput, n: number, mean: number, most: number): UpWish | null {
  const { rules, load } = input
  let demandPercent = mean
  let by: UpWish['by'] = 'mean'
  // Far above the threshold nobody waits for the window's mean to follow: what held for some reports is no spike.
  const sustained = load.sustainedPercent ?? 0
  if (sustained > demandPercent && sustained / n > (upperThreshold(rules, n) + 100) / 2) {
    demandPercent = sustained
    by = 'sustained'
  }
  const fullPercent = 100 * input.ready
  const arrivals = Math.min(load.arrivalPercent ?? 0, MOST_BY_ARRIVALS * fullPercent)
  const showsArrivals =
    !load.backlogKnown && sustained >= (SATURATED_PERCENT / 100) * fullPercent && arrivals >= OPEN_ARRIVALS * fullPercent
  if (showsArrivals && arrivals > demandPercent) {
    demandPercent = arrivals
    by = 'arrivals'
  }
  // Nothing ordered now helps before it is ready: steady growth is carried on until then.
  if (load.growthPercentPerS > 0) {
    const now = Math.max(demandPercent, sustained)
    const ahead = Math.min(now + grownBy(input), MOST_BY_GROWTH * now)
    if (ahead > demandPercent) {
      demandPercent = ahead
      by = 'growth'
    }
  }
  const wish = demandPercent / n > upperThreshold(rules, n) ? smallestFor(rules, demandPercent, n + 1, most) : n
  // What was measured before the newest instances took their share says nothing about them.
  const isSettled = load.settledMs >= rules.windowMs / 3
  const isSaturated = isSettled && (load.meanPercent ?? 0) >= SATURATED_PERCENT && !load.backlogKnown
  const last = input.lastStep
  // Once arrivals explain why instances are full, those that are starting are waited for.
  if (isSaturated && !showsArrivals && (last === null || last.agoMs >= rules.windowMs)) {
    const noRelief =
      last !== null &&
      last.to > last.from &&
      input.ready >= last.to - input.excluded &&
      last.agoMs <= NO_RELIEF_WINDOWS * rules.windowMs
    const bold = Math.min(Math.ceil((noRelief ? 2 : 1.5) * n), MOST_BY_FULL * input.ready)
    if (bold > wish) return { n: bold, code: 'saturated', demandPercent, by: 'full' }
  }
  return wish > n ? { n: wish, code: showsArrivals ? 'saturated' : 'up', demandPercent, by } : null
}

/**
 * What steady growth adds until an instance ordered now is ready. It was looked at for a stabilization window at most: that says
 * nothing about the half hour that a slow machine takes, for which there is the forecast.
 */
function grownBy({ rules, load, leadMs }: ReplicasInput): number {
  return (load.growthPercentPerS * growthReachMs(rules, leadMs)) / 1000
}

function growthReachMs(rules: ScaleRules, leadMs: number): number {
  return Math.min(leadMs, GROWTH_REACH * rules.downWindowMs)
}

/** Smallest count from `least` on, at most `most`, whose threshold carries the demand. */
export function smallestFor(rules: ScaleRules, demandPercent: number, least: number, most: number): number {
  const highest = Math.max(rules.highPercent, ...rules.steps.map((step) => step.percent))
  let count = Math.max(least, Math.min(most, Math.floor(demandPercent / Math.max(1, highest))))
  while (count < most && demandPercent / count > upperThreshold(rules, count)) count += 1
  return count
}

function reasonOf(up: UpWish, input: ReplicasInput, n: number, numbers: string): string {
  const full = `${input.ready} ready instances are full`
  switch (up.by) {
    case 'mean':
      return numbers
    case 'sustained':
      return `sustained demand ${round(up.demandPercent)} % over ${n} = ${round(up.demandPercent / n)} %, threshold ${round(upperThreshold(input.rules, n))} %`
    case 'growth':
      return `demand grows by ${round(60 * input.load.growthPercentPerS)} % a minute and will be ${round(up.demandPercent)} % in ${seconds(growthReachMs(input.rules, input.leadMs))}; ${n} carry ${round(n * upperThreshold(input.rules, n))} %`
    case 'arrivals':
      return `${full}; the requests that arrive are ${round(up.demandPercent)} % of work over ${n}`
    case 'full':
      return `${full} (mean ${round(input.load.meanPercent ?? 0)} %)`
  }
}

function planDown(
  input: ReplicasInput,
  n: number,
  /** No fewer by the bounds and by the forecast, and by the bounds alone. */
  least: number,
  leastByBounds: number,
  numbers: string,
  decide: (code: ScalingCode, wish: number, text: string) => ReplicasPlan,
): ReplicasPlan {
  const { rules, load, wanted, lastStep } = input
  const hold = (code: ScalingCode, text: string) => decide(code, wanted, text)
  if (n <= leastByBounds || (load.meanPercent ?? 0) >= SATURATED_PERCENT) return hold('steady', numbers)
  const seen = load.peakDemandPercent ?? load.demandPercent ?? Number.POSITIVE_INFINITY
  const peak = Math.max(seen, (load.demandPercent ?? 0) + grownBy(input))
  const fits = (count: number) => peak / count <= DOWN_MARGIN * upperThreshold(rules, count)
  if (!fits(n - 1)) return hold('steady', numbers)
  if (input.rolloutUnhealthy) return hold('rollout-unhealthy', `${numbers}; not fewer while the rollout is unhealthy`)
  const quietMs = Math.min(load.completeMs, lastStep?.agoMs ?? Number.POSITIVE_INFINITY)
  if (quietMs < rules.downWindowMs) {
    const isMissing = load.completeMs < rules.downWindowMs && load.completeMs < (lastStep?.agoMs ?? Number.POSITIVE_INFINITY)
    const text = `fewer only after ${seconds(rules.downWindowMs)} of low load with every report there, so far ${seconds(quietMs)}`
    return hold(isMissing ? 'missing-data' : 'stabilizing', `${numbers}; ${text}`)
  }
  if (n <= least) return hold('forecast-hold', `${numbers}; not fewer: ${forecastText(input)}`)
  const fewest = Math.max(least, n - Math.max(1, Math.floor(n / 2)))
  let to = n - 1
  while (to > fewest && fits(to - 1)) to -= 1
  const quiet = `peak demand ${round(peak)} % over ${seconds(rules.downWindowMs)}; over ${to} = ${round(peak / to)} %, at most ${round(DOWN_MARGIN * upperThreshold(rules, to))} %`
  return decide('down', wanted - (n - to), quiet)
}

/** A step up that did not lower memory use will not the next time either. */
function isMemoryStuck({ memoryLed, meanBeforePercent, lastStep, ready, load }: ReplicasInput): boolean {
  if (!memoryLed || lastStep === null || lastStep.to <= lastStep.from || meanBeforePercent === null) return false
  return ready >= lastStep.to && (load.meanPercent ?? 0) > 0.95 * meanBeforePercent
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`
}
