/**
 * The rules of one service as they hold now: with the bounds of its schedules, and the thresholds where its objective has moved them.
 * The coordinator and the simulator ask here.
 */
import type { Calendar } from '../../shared/calendar.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import type { ObjectiveKeeper } from './objective-keeper.ts'
import { withShift } from './plan-objective.ts'
import { boundsAt, type ScaleBounds } from './plan-schedule.ts'

export interface PresentRules {
  /** `aheadMs`: how long instances ordered now take, machines included, so that a higher minimum is there in time. */
  at(rules: ScaleRules, wallMs: number, aheadMs: number): ScaleRules
  /** The bounds as they were last asked for; null before that, and without schedules. */
  readonly bounds: ScaleBounds | null
}

export function createPresentRules(calendar: Calendar, objective: Pick<ObjectiveKeeper, 'shiftPercent'>): PresentRules {
  /** Bounds that hold from `fromMs` (epoch) until theirs end. */
  let found: { readonly of: ScaleBounds; readonly rules: ScaleRules; readonly aheadMs: number; readonly fromMs: number } | null =
    null

  const boundsOf = (rules: ScaleRules, wallMs: number, aheadMs: number): ScaleBounds => {
    // A wall clock that jumped is before them, past them, or still within.
    const holds = found !== null && wallMs >= found.fromMs && wallMs < (found.of.untilMs ?? Number.POSITIVE_INFINITY)
    if (found === null || !holds || found.rules !== rules || found.aheadMs !== aheadMs)
      found = { of: boundsAt(rules, wallMs, aheadMs, calendar), rules, aheadMs, fromMs: wallMs }
    return found.of
  }

  return {
    get bounds() {
      return found?.of ?? null
    },
    at(rules, wallMs, aheadMs) {
      if (rules.schedules === undefined) found = null
      const shiftPercent = rules.objective === undefined ? 0 : objective.shiftPercent
      if (rules.schedules === undefined && shiftPercent === 0) return rules
      const { min, max } = rules.schedules === undefined ? rules : boundsOf(rules, wallMs, aheadMs)
      return { ...withShift(rules, shiftPercent), min, max }
    },
  }
}
