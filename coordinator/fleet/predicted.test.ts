import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ScaleRules } from '../../shared/model/app.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import { withShift } from '../scaling/plan-objective.ts'
import { type LoadSummary, planReplicas } from '../scaling/plan-replicas.ts'
import type { Snapshot } from '../state/state.ts'
import { countAhead, type PredictedDeps, predictedInstances } from './predicted.ts'

const RULES: ScaleRules = {
  min: 1,
  max: 12,
  lowPercent: 60,
  highPercent: 80,
  steps: [],
  windowMs: 30_000,
  downWindowMs: 120_000,
  warmUpMs: 0,
  coolDownMs: 0,
  predict: 'auto',
}

function forecast(peak: number, isTrusted = true): DemandForecast {
  return {
    method: 'profile',
    peak,
    expected: [peak],
    upper: [peak],
    atMs: 0,
    stepMs: 60_000,
    horizonMs: 600_000,
    errorVsPersistence: 0.5,
    isTrusted,
    isJudged: true,
  }
}

function predict(overrides: Partial<PredictedDeps>, pinned: number | null = null) {
  const objects: Record<string, unknown> = {
    'service shop/web': { id: 'shop/web', desired: 2, pinned },
  }
  return predictedInstances({
    snapshot: { get: (kind: string, key: string) => objects[`${kind} ${key}`] } as unknown as Snapshot,
    forecast: () => [['shop/web', forecast(720)]],
    forecastOf: () => forecast(720),
    startTimeMs: () => 5_000,
    machineLeadMs: () => 90_000,
    attempt: (_, work) => work(),
    rulesOf: () => RULES,
    uselessOf: () => 0,
    ...overrides,
  })
}

describe('instances wanted within the machine lead time', () => {
  it('B6: the count that carries the peak until a machine ordered now could run them', () => {
    const horizons: number[] = []
    const result = predict({
      forecastOf: (_, horizonMs) => {
        horizons.push(horizonMs)
        return forecast(720)
      },
    })
    // 720 % over 10 are 72 %, below the threshold of 80 − 20/10 = 78 %; over 9 they would be 80 %.
    expect(result).toEqual([{ service: 'shop/web', count: 10 }])
    expect(horizons).toEqual([90_000 + 5_000 + 60_000])
  })

  it('keeps room for the errors of a forecast that is no better than persistence, once they are known', () => {
    expect(predict({ forecastOf: () => forecast(720, false) })).toEqual([{ service: 'shop/web', count: 10 }])
    expect(predict({ forecastOf: () => ({ ...forecast(720, false), errorVsPersistence: null }) })).toEqual([])
  })

  it('is silent without a forecast, without a learned lead, for what is pinned, and never beyond the service’s most', () => {
    expect(predict({ forecastOf: () => null })).toEqual([])
    expect(predict({ machineLeadMs: () => null })).toEqual([])
    expect(predict({}, 3)).toEqual([])
    expect(predict({ forecastOf: () => forecast(1e9) })).toEqual([{ service: 'shop/web', count: 12 }])
  })

  it('plans by the rules in force: the thresholds that the objective moved, the bounds of the schedule', () => {
    const moved = withShift({ ...RULES, max: 50 }, -35)
    // 720 % over 17 are 42.4 %, over 16 they are 45 %; the threshold there is 45 − 20/16 = 43.75 %.
    expect(predict({ rulesOf: () => moved })).toEqual([{ service: 'shop/web', count: 17 }])
    expect(predict({ rulesOf: () => ({ ...RULES, min: 2, max: 6 }) })).toEqual([{ service: 'shop/web', count: 6 }])
    expect(predict({ rulesOf: () => null })).toEqual([])
  })

  it('B6: what the fleet plans ahead is never less than scaling will want by the same forecast and rules', () => {
    const rules = fc
      .record({
        min: fc.integer({ min: 0, max: 20 }),
        more: fc.integer({ min: 0, max: 200 }),
        lowPercent: fc.integer({ min: 5, max: 60 }),
        spread: fc.integer({ min: 0, max: 35 }),
        shift: fc.integer({ min: -35, max: 0 }),
        steps: fc.array(fc.record({ replicas: fc.integer({ min: 1, max: 50 }), percent: fc.integer({ min: 5, max: 95 }) }), {
          maxLength: 3,
        }),
      })
      .map(({ min, more, lowPercent, spread, shift, steps }) =>
        withShift({ ...RULES, min, max: min + more, lowPercent, highPercent: lowPercent + spread, steps }, shift),
      )
    const peak = fc.double({ min: 0, max: 30_000, noNaN: true })
    const counts = fc.tuple(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 20 }))
    fc.assert(
      fc.property(rules, peak, counts, (inForce, percent, [wanted, useless]) => {
        const excluded = Math.min(useless, wanted)
        const { decision } = planReplicas({
          serviceId: 'shop/web',
          rules: inForce,
          boundsNote: null,
          forecast: forecast(percent),
          wanted,
          pinned: null,
          excluded,
          ready: wanted - excluded,
          load: QUIET,
          leadMs: 0,
          lastStep: null,
          rolloutUnhealthy: false,
          memoryLed: false,
          meanBeforePercent: null,
        })
        fc.pre(decision.code === 'forecast')
        expect(countAhead(forecast(percent), inForce, excluded)).toBeGreaterThanOrEqual(decision.wish)
      }),
      { numRuns: 500 },
    )
  })
})

/** No load at all: whatever is wanted more is wanted for the forecast. */
const QUIET: LoadSummary = {
  demandPercent: 0,
  meanPercent: 0,
  settledMs: 600_000,
  coveredMs: 600_000,
  peakDemandPercent: 0,
  completeMs: 600_000,
  backlogKnown: true,
  sustainedPercent: 0,
  arrivalPercent: null,
  parts: null,
  growthPercentPerS: 0,
}
