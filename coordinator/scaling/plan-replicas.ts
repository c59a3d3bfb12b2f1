/**
 * How many instances a service wants, from the load its instances report (design §8.1). Pure; the loop measures and commits.
 * Loads are in percent of one instance: a demand of 250 is two and a half full instances' worth.
 */
import type { ScaleRules } from '../../shared/model/app.ts'
import { earliest, type Plan } from '../../shared/plan.ts'

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
}

export interface ReplicasInput {
  readonly serviceId: string
  readonly rules: ScaleRules
  /** Wanted now, with those that are of no use. */
  readonly wanted: number
  readonly pinned: number | null
  /** Of these, how many crash-loop or take more than twice their learned time to start. */
  readonly excluded: number
  /** Ready and warmed up. */
  readonly ready: number
  readonly load: LoadSummary
  /** The last step of scaling, and how long ago it was by monotonic time; null: none is known. */
  readonly lastStep: { readonly from: number; readonly to: number; readonly agoMs: number } | null
  readonly rolloutUnhealthy: boolean
  /** Memory is the only source of load: it hardly divides among replicas. `meanBeforePercent`: mean before the last step up. */
  readonly memoryOnly: boolean
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
  const decide = (code: ScalingCode, wish: number, text: string, wakeAtMs: number | null = null): ReplicasPlan => {
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
    return { actions, reasons: [{ subject: input.serviceId, code, text }], wakeAtMs: earliest(wakeAtMs, null), decision }
  }

  if (input.pinned !== null) return decide('pinned', wanted, `pinned to ${input.pinned}`)
  if (!(wanted >= least && wanted <= most))
    return decide('bounds', Number.isFinite(wanted) ? wanted : least, `kept within ${least} to ${most}`)
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
    if (wish > wanted)
      return decide(
        up.code,
        wish,
        up.code === 'up' ? numbers : `${input.ready} ready instances are full (mean ${round(load.meanPercent ?? 0)} %)`,
      )
  }
  return planDown(input, n, least, numbers, decide)
}

/** The number of useful instances that the load asks for, if more than `n`. */
function wishUp(input: ReplicasInput, n: number, demand: number, most: number): { n: number; code: 'up' | 'saturated' } | null {
  const { rules, load } = input
  let wish = n
  if (demand / n > upperThreshold(rules, n)) {
    const highest = Math.max(rules.highPercent, ...rules.steps.map((step) => step.percent))
    wish = Math.max(n + 1, Math.min(most, Math.floor(demand / Math.max(1, highest))))
    while (wish < most && demand / wish > upperThreshold(rules, wish)) wish += 1
  }
  // What was measured before the newest instances took their share says nothing about them.
  const isSettled = load.settledMs >= rules.windowMs / 3
  const isSaturated = isSettled && (load.meanPercent ?? 0) >= SATURATED_PERCENT && !load.backlogKnown
  const last = input.lastStep
  if (isSaturated && (last === null || last.agoMs >= rules.windowMs)) {
    const noRelief =
      last !== null &&
      last.to > last.from &&
      input.ready >= last.to - input.excluded &&
      last.agoMs <= NO_RELIEF_WINDOWS * rules.windowMs
    const bold = Math.min(Math.ceil((noRelief ? 2 : 1.5) * n), 4 * input.ready)
    if (bold > wish) return { n: bold, code: 'saturated' }
  }
  return wish > n ? { n: wish, code: 'up' } : null
}

function planDown(
  input: ReplicasInput,
  n: number,
  least: number,
  numbers: string,
  decide: (code: ScalingCode, wish: number, text: string) => ReplicasPlan,
): ReplicasPlan {
  const { rules, load, wanted, lastStep } = input
  const hold = (code: ScalingCode, text: string) => decide(code, wanted, text)
  if (n <= least || (load.meanPercent ?? 0) >= SATURATED_PERCENT) return hold('steady', numbers)
  const peak = load.peakDemandPercent ?? load.demandPercent ?? Number.POSITIVE_INFINITY
  const fits = (count: number) => peak / count <= DOWN_MARGIN * upperThreshold(rules, count)
  if (!fits(n - 1)) return hold('steady', numbers)
  if (input.rolloutUnhealthy) return hold('rollout-unhealthy', `${numbers}; not fewer while the rollout is unhealthy`)
  const quietMs = Math.min(load.completeMs, lastStep?.agoMs ?? Number.POSITIVE_INFINITY)
  if (quietMs < rules.downWindowMs) {
    const isMissing = load.completeMs < rules.downWindowMs && load.completeMs < (lastStep?.agoMs ?? Number.POSITIVE_INFINITY)
    const text = `fewer only after ${seconds(rules.downWindowMs)} of low load with every report there, so far ${seconds(quietMs)}`
    return hold(isMissing ? 'missing-data' : 'stabilizing', `${numbers}; ${text}`)
  }
  const fewest = Math.max(least, n - Math.max(1, Math.floor(n / 2)))
  let to = n - 1
  while (to > fewest && fits(to - 1)) to -= 1
  const quiet = `peak demand ${round(peak)} % over ${seconds(rules.downWindowMs)}; over ${to} = ${round(peak / to)} %, at most ${round(DOWN_MARGIN * upperThreshold(rules, to))} %`
  return decide('down', wanted - (n - to), quiet)
}

/** A step up that did not lower memory use will not the next time either. */
function isMemoryStuck({ memoryOnly, meanBeforePercent, lastStep, ready, load }: ReplicasInput): boolean {
  if (!memoryOnly || lastStep === null || lastStep.to <= lastStep.from || meanBeforePercent === null) return false
  return ready >= lastStep.to && (load.meanPercent ?? 0) > 0.95 * meanBeforePercent
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`
}
