/**
 * `make bench ONLY=scaling`: scaling rules over shapes of load, launch delays, sizes and imperfections, in a model of a service. Every
 * figure is exact and repeatable (seeded); no time is measured.
 */
import type { BenchResult } from './result.ts'
import { type Rule, type RuleFigures, runRule, type Scenario } from './scaling-rule-model.ts'
import { hpa, oneByOne, ours } from './scaling-rule-policies.ts'

const SECONDS = 5_400
const LAUNCHES_S = [1, 10, 60, 240]
/** Peaks in percent of one instance: about 4, 20 and 36 instances are needed. */
const PEAKS = [250, 1_500, 2_800]

/** Shapes of load between a low demand and the peak. */
const SHAPES: Readonly<Record<string, (s: number, peak: number) => number>> = {
  step: (s, peak) => (s < 300 ? 0.15 * peak : peak),
  ramp: (s, peak) => peak * Math.min(1, 0.1 + (0.9 * Math.max(0, s - 300)) / 900),
  sawtooth: (s, peak) => peak * (0.1 + 0.9 * ((s % 1_200) / 1_200)),
  spike: (s, peak) => (s >= 600 && s < 660 ? peak : 0.15 * peak),
  stuck: (s, peak) => (s < 300 ? 0.15 * peak : peak),
  sine: (s, peak) => peak * (0.6 - 0.4 * Math.cos((2 * Math.PI * s) / 3_600)),
  'flash crowd': (s, peak) =>
    s < 600 ? 0.1 * peak : peak * Math.max(0.1, s < 720 ? 0.1 * 10 ** ((s - 600) / 120) : 0.5 ** ((s - 720) / 600)),
}

interface Setting {
  readonly name: string
  readonly balance: Scenario['balance']
  readonly noise: number
  readonly countsRequests: boolean
}

const SETTINGS: readonly Setting[] = [
  { name: 'ideal, load only', balance: 'ideal', noise: 0, countsRequests: false },
  { name: 'unequal and noisy, load only', balance: 'unequal', noise: 0.1, countsRequests: false },
  { name: 'ideal, requests counted', balance: 'ideal', noise: 0, countsRequests: true },
  { name: 'unequal and noisy, requests counted', balance: 'unequal', noise: 0.1, countsRequests: true },
]

const RULES: Readonly<Record<string, () => Rule>> = {
  ours: () => ours({ sustained: true, arrivals: true, growth: true }),
  'without sustained': () => ours({ sustained: false, arrivals: true, growth: true }),
  'without arrivals': () => ours({ sustained: true, arrivals: false, growth: true }),
  'without growth': () => ours({ sustained: true, arrivals: true, growth: false }),
  'without all three': () => ours({ sustained: false, arrivals: false, growth: false }),
  HPA: hpa,
  'one by one': oneByOne,
}

/** All scenarios of one shape and one setting: each launch delay with each peak. */
function scenarios(shape: string, setting: Setting): Scenario[] {
  const demand = SHAPES[shape] ?? (() => 0)
  return LAUNCHES_S.flatMap((launchS) =>
    PEAKS.map((peak) => ({
      name: `${shape} to ${peak} %, launch ${launchS} s, ${setting.name}`,
      demandAt: (s: number) => demand(s, peak),
      launchS,
      seconds: SECONDS,
      balance: setting.balance,
      noise: setting.noise,
      stuck: shape === 'stuck' ? 0.3 : 0,
      countsRequests: setting.countsRequests,
    })),
  )
}

export function benchScalingRule(): readonly BenchResult[] {
  const lines = [
    '| load | rule | worst peak ÷ need | overloaded | under threshold | beyond need | turns/h | reaction |',
    '|---|---|---|---|---|---|---|---|',
  ]
  const bySetting = new Map<string, RuleFigures[]>()
  const totals = new Map<string, RuleFigures[]>()
  for (const shape of Object.keys(SHAPES))
    for (const [name, create] of Object.entries(RULES)) {
      const runs = SETTINGS.flatMap((setting) => {
        const own = scenarios(shape, setting).map((scenario, index) => runRule(create(), scenario, 1 + index))
        const key = `${setting.name} | ${name}`
        bySetting.set(key, [...(bySetting.get(key) ?? []), ...own])
        return own
      })
      totals.set(name, [...(totals.get(name) ?? []), ...runs])
      lines.push(`| ${shape} | ${name} | ${cells(runs)} |`)
    }
  for (const [name, runs] of bySetting) lines.push(`| ${name} | ${cells(runs)} |`)
  for (const [name, runs] of totals) lines.push(`| all | ${name} | ${cells(runs)} |`)
  process.stdout.write(`${lines.join('\n')}\n`)
  const of = (name: string) => summarize(totals.get(name) ?? [])
  const now = of('ours')
  const before = of('without all three')
  const other = of('HPA')
  const figure = (name: string, unit: string, pick: (figures: Summary) => number): BenchResult => ({
    name: `scaling.${name}`,
    value: pick(now),
    unit,
    better: 'lower',
    target: null,
    peer: `without all three ${pick(before).toFixed(2)}, HPA ${pick(other).toFixed(2)}`,
    ratio: pick(now) / pick(other),
  })
  return [
    figure('rule_overloaded_percent', '%', (each) => each.overloaded),
    figure('rule_under_threshold_percent', '%', (each) => each.under),
    figure('rule_beyond_need_percent', '%', (each) => each.over),
    figure('rule_worst_peak_over_need', '×', (each) => each.peak),
    figure('rule_turns_per_hour', '1/h', (each) => each.turns),
    figure('rule_reaction_s', 's', (each) => each.reaction),
  ]
}

interface Summary {
  readonly peak: number
  readonly overloaded: number
  readonly under: number
  readonly over: number
  readonly turns: number
  readonly reaction: number
}

/** The worst peak, means of the rest, shares in percent. */
function summarize(runs: readonly RuleFigures[]): Summary {
  const reactions = runs.flatMap(({ reactionS }) => (reactionS === null ? [] : [reactionS]))
  return {
    peak: Math.max(...runs.map((run) => run.peakOverNeed)),
    overloaded: 100 * mean(runs.map((run) => run.overloaded)),
    under: 100 * mean(runs.map((run) => run.under)),
    over: 100 * mean(runs.map((run) => run.over)),
    turns: mean(runs.map((run) => run.turnsPerHour)),
    reaction: mean(reactions),
  }
}

function cells(runs: readonly RuleFigures[]): string {
  const { peak, overloaded, under, over, turns, reaction } = summarize(runs)
  return `${peak.toFixed(2)} | ${overloaded.toFixed(2)} % | ${under.toFixed(2)} % | ${over.toFixed(0)} % | ${turns.toFixed(1)} | ${reaction.toFixed(0)} s`
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? Number.NaN : values.reduce((sum, value) => sum + value, 0) / values.length
}
