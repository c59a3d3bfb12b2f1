/**
 * A service as a scaling rule sees it, in steps of a second: demand in instances' worth, a launch delay, a balancer, reports every
 * two seconds, and instances that never get ready. What exceeds the ready instances is refused (callers that do not wait).
 */
import { createLoadWindow, type LoadWindow } from '../../coordinator/scaling/load-window.ts'
import { type LoadSummary, upperThreshold } from '../../coordinator/scaling/plan-replicas.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import { type Random, seededRandom } from '../../shared/random.ts'

export interface RuleView {
  readonly atS: number
  readonly rules: ScaleRules
  readonly wanted: number
  /** Of these, how many take far longer than the others did. */
  readonly excluded: number
  readonly ready: number
  /** Loads of the ready instances at this moment, as reported. */
  readonly loads: readonly number[]
  readonly load: LoadSummary
  /** What has been learned of the launch delay. */
  readonly launchMs: number
  readonly lastStep: { readonly from: number; readonly to: number; readonly agoMs: number } | null
}

/** A rule with its own memory; asked once a second, answers the wanted count. */
export type Rule = (view: RuleView) => number

export interface Scenario {
  readonly name: string
  /** Percent of one instance at second `s`. */
  readonly demandAt: (s: number) => number
  readonly launchS: number
  readonly seconds: number
  readonly balance: 'ideal' | 'unequal'
  /** Standard deviation of a report, relative. */
  readonly noise: number
  /** Share of ordered instances that never get ready. */
  readonly stuck: number
  /** Whether gateways count the requests; else only the load is known. */
  readonly countsRequests: boolean
}

export interface RuleFigures {
  /** Most wanted ÷ most needed. */
  readonly peakOverNeed: number
  /** Share of time with more demand than the ready instances can serve at all. */
  readonly overloaded: number
  /** Share of time with fewer ready than the threshold asks for. */
  readonly under: number
  /** Wanted beyond need, relative to the need. */
  readonly over: number
  /** Changes of direction per hour. */
  readonly turnsPerHour: number
  /** Seconds from the first excess of the threshold to the first order; null when none came. */
  readonly reactionS: number | null
}

interface ModelInstance {
  readonly orderedS: number
  readonly readyS: number
  readonly weight: number
  reported: number
}

const MAX_REPLICAS = 200
/** Requests per second of one full instance. */
const REQUESTS_PER_S = 50

export const MODEL_RULES: ScaleRules = {
  min: 1,
  max: MAX_REPLICAS,
  lowPercent: 60,
  highPercent: 80,
  steps: [],
  windowMs: 30_000,
  downWindowMs: 120_000,
  warmUpMs: 0,
  coolDownMs: 20_000,
  predict: 'off',
}

/** Smallest count whose threshold carries the demand. */
export function needFor(rules: ScaleRules, demand: number): number {
  let n = 1
  while (demand / n > upperThreshold(rules, n)) n += 1
  return n
}

/** Runs one rule through one scenario. Same seed, same outcome. */
export function runRule(rule: Rule, scenario: Scenario, seed: number): RuleFigures {
  const random = seededRandom(seed)
  const window: LoadWindow = createLoadWindow(MODEL_RULES.windowMs, MODEL_RULES.downWindowMs)
  const order = (s: number, launchS: number): ModelInstance => ({
    orderedS: s,
    readyS: s > 0 && random.next() < scenario.stuck ? Number.POSITIVE_INFINITY : s + launchS,
    weight: scenario.balance === 'ideal' ? 1 : 0.6 + 0.8 * random.next(),
    reported: 0,
  })
  let instances = Array.from({ length: needFor(MODEL_RULES, scenario.demandAt(0)) }, () => order(0, 0))
  let lastStep: { from: number; to: number; atS: number } | null = null
  let direction = 0
  let turns = 0
  let overloaded = 0
  let under = 0
  let beyond = 0
  let needed = 0
  let mostWanted = 0
  let mostNeeded = 0
  let excessAtS: number | null = null
  let reactionS: number | null = null
  let arrived = 0
  for (let s = 0; s < scenario.seconds; s += 1) {
    const demand = scenario.demandAt(s)
    const ready = instances.filter((instance) => instance.readyS <= s)
    const weights = ready.reduce((sum, instance) => sum + instance.weight, 0)
    arrived += (demand / 100) * REQUESTS_PER_S
    for (const [slot, instance] of ready.entries()) {
      if (s % 2 !== slot % 2 && instance.readyS !== s) continue
      const share = (demand * instance.weight) / weights
      instance.reported = Math.min(100, Math.max(0, share * (1 + scenario.noise * gaussian(random))))
    }
    const requests = s % 2 === 0 ? Math.round(arrived) : 0
    if (s % 2 === 0) arrived = 0
    window.add(
      s * 1000,
      ready.map(({ reported }) => ({ loadPercent: reported, demand: null })),
      scenario.countsRequests && ready.length > 0 ? requests : 0,
    )
    const wanted = instances.length
    // Started ones took `launchS`: twice that is too long, as the loop judges it.
    const late = instances.filter((instance) => instance.readyS > s && s - instance.orderedS > Math.max(60, 2 * scenario.launchS))
    const to = Math.min(
      MAX_REPLICAS,
      Math.max(
        1,
        rule({
          atS: s,
          rules: MODEL_RULES,
          wanted,
          excluded: late.length,
          ready: ready.length,
          loads: ready.map(({ reported }) => reported),
          load: window.summary(s * 1000, scenario.launchS * 1000),
          launchMs: scenario.launchS * 1000,
          lastStep: lastStep === null ? null : { from: lastStep.from, to: lastStep.to, agoMs: (s - lastStep.atS) * 1000 },
        }),
      ),
    )
    const need = needFor(MODEL_RULES, demand)
    if (need > wanted && excessAtS === null) excessAtS = s
    if (to > wanted) {
      if (excessAtS !== null && reactionS === null) reactionS = s - excessAtS
      instances.push(...Array.from({ length: to - wanted }, () => order(s, scenario.launchS)))
    } else if (to < wanted) {
      // Those that are not ready go first, the youngest first.
      const byWorth = [...instances].sort((a, b) => a.readyS - b.readyS || a.orderedS - b.orderedS)
      instances = byWorth.slice(0, to)
    }
    if (to !== wanted) {
      const turn = Math.sign(to - wanted)
      if (direction !== 0 && turn !== direction) turns += 1
      direction = turn
      lastStep = { from: wanted, to, atS: s }
    }
    if (demand > 100 * ready.length) overloaded += 1
    if (ready.length < need) under += 1
    beyond += Math.max(0, to - need)
    needed += need
    mostWanted = Math.max(mostWanted, to)
    mostNeeded = Math.max(mostNeeded, need)
  }
  return {
    peakOverNeed: mostWanted / mostNeeded,
    overloaded: overloaded / scenario.seconds,
    under: under / scenario.seconds,
    over: beyond / needed,
    turnsPerHour: (turns * 3600) / scenario.seconds,
    reactionS,
  }
}

/** Sum of twelve uniform numbers less six: near enough to a normal distribution. */
function gaussian(random: Random): number {
  let sum = -6
  for (let i = 0; i < 12; i += 1) sum += random.next()
  return sum
}
