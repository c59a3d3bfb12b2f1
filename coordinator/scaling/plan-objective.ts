/**
 * Turns an objective (95 % of answers within so many ms) into a load threshold, slowly: what is missed lowers the threshold below
 * the load at which it was missed, what is kept with room to spare near the threshold raises it a little. Pure.
 */
import type { ScaleRules } from '../../shared/model/app.ts'

/** Carried from one interval to the next. */
export interface ObjectiveState {
  /** Percentage points by which the thresholds of the app file are moved; below 0: more instances. */
  readonly shiftPercent: number
  /** What was measured when it was lowered last; null when that has been judged. */
  readonly lowered: { readonly p95Ms: number; readonly meanPercent: number } | null
  /** Intervals left in which it is not lowered again, since lowering brought nothing. */
  readonly restIntervals: number
}

/** Measured over one interval. */
export interface ObjectiveInput {
  readonly rules: ScaleRules
  readonly objectiveMs: number
  readonly requests: number
  readonly p95Ms: number | null
  /** Mean load of the ready instances; null without data. */
  readonly meanPercent: number | null
  /** Upper threshold at the present count, as moved, percent. */
  readonly thresholdPercent: number
  /** No instance is starting, none was ordered or taken away within the interval, and the instances are not full. */
  readonly isSteady: boolean
  readonly atMost: boolean
}

export type ObjectiveCode = 'few-requests' | 'unsteady' | 'kept' | 'raised' | 'lowered' | 'at-most' | 'not-by-load'

export interface ObjectivePlan {
  readonly state: ObjectiveState
  readonly code: ObjectiveCode
  readonly reason: string
}

export const NO_SHIFT: ObjectiveState = { shiftPercent: 0, lowered: null, restIntervals: 0 }

/** Fewer answers make no 95th percentile. */
export const LEAST_REQUESTS = 100
const LEAST_PERCENT = 20
const MOST_PERCENT = 95
/** Kept with this much room, the threshold may rise; in between nothing moves. */
const ROOM = 0.7
/** Only a load this near the threshold tells how answers are at the threshold. */
const NEAR = 0.85
const RAISE_PERCENT = 2
const LOWER_PERCENT = 5
/** A mean that fell by this much must have made answers faster, or load is not what makes them slow. */
const RELIEF_PERCENT = 5
const REST_INTERVALS = 10

/** Decides once per interval. */
export function planObjective(state: ObjectiveState, input: ObjectiveInput): ObjectivePlan {
  const { p95Ms, meanPercent, objectiveMs, requests, thresholdPercent } = input
  const keep = (code: ObjectiveCode, reason: string, next: Partial<ObjectiveState> = {}): ObjectivePlan => ({
    state: { ...state, restIntervals: Math.max(0, state.restIntervals - 1), ...next },
    code,
    reason,
  })
  if (p95Ms === null || meanPercent === null || requests < LEAST_REQUESTS)
    return keep('few-requests', `${requests} answers are too few to judge`)
  const measured = `p95 ${Math.round(p95Ms)} ms of ${objectiveMs} ms at a load of ${Math.round(meanPercent)} %`
  if (!input.isSteady) return keep('unsteady', `${measured}; not judged while instances start or are full`)
  if (p95Ms <= objectiveMs) {
    const isNear = meanPercent >= NEAR * thresholdPercent
    if (p95Ms > ROOM * objectiveMs || !isNear) return keep('kept', measured, { lowered: null })
    const shiftPercent = clampShift(input.rules, state.shiftPercent + RAISE_PERCENT)
    if (shiftPercent === state.shiftPercent) return keep('kept', measured, { lowered: null })
    return keep('raised', `${measured}: threshold up by ${shiftPercent - state.shiftPercent}`, { shiftPercent, lowered: null })
  }
  const { lowered } = state
  if (lowered !== null && meanPercent <= lowered.meanPercent - RELIEF_PERCENT && p95Ms >= 0.9 * lowered.p95Ms)
    return keep(
      'not-by-load',
      `${measured}, as slow as at ${Math.round(lowered.meanPercent)} %: it is not load that makes it slow`,
      {
        shiftPercent: 0,
        lowered: null,
        restIntervals: REST_INTERVALS,
      },
    )
  if (state.restIntervals > 0 || meanPercent < LEAST_PERCENT)
    return keep('not-by-load', `${measured}: more instances would not help`)
  if (input.atMost) return keep('at-most', `${measured}; already at the most instances`)
  const step = p95Ms > 2 * objectiveMs ? 2 * LOWER_PERCENT : LOWER_PERCENT
  const target = Math.min(thresholdPercent, meanPercent) - step
  const shiftPercent = clampShift(input.rules, state.shiftPercent + target - thresholdPercent)
  if (shiftPercent >= state.shiftPercent) return keep('at-most', `${measured}; the threshold is at its lowest`)
  return keep('lowered', `${measured}: threshold down by ${Math.round(state.shiftPercent - shiftPercent)}`, {
    shiftPercent,
    lowered: lowered ?? { p95Ms, meanPercent },
  })
}

/** The rules with their thresholds moved, each within 20 to 95 %. */
export function withShift(rules: ScaleRules, shiftPercent: number): ScaleRules {
  if (shiftPercent === 0) return rules
  const moved = (percent: number) =>
    within(percent + shiftPercent, Math.min(percent, LEAST_PERCENT), Math.max(percent, MOST_PERCENT))
  return {
    ...rules,
    lowPercent: moved(rules.lowPercent),
    highPercent: moved(rules.highPercent),
    steps: rules.steps.map((step) => ({ ...step, percent: moved(step.percent) })),
  }
}

/** No further than moves some threshold: what went beyond would have to be undone first. */
function clampShift(rules: ScaleRules, shiftPercent: number): number {
  const percents = rules.steps.length > 0 ? rules.steps.map((step) => step.percent) : [rules.lowPercent, rules.highPercent]
  return within(
    shiftPercent,
    Math.min(0, LEAST_PERCENT - Math.max(...percents)),
    Math.max(0, MOST_PERCENT - Math.min(...percents)),
  )
}

function within(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value))
}
