import { describe, expect, it } from 'vitest'
import type { ScaleRules } from '../../shared/model/app.ts'
import type { DemandForecast } from '../forecast/forecaster.ts'
import type { Snapshot } from '../state/state.ts'
import { type PredictedDeps, predictedInstances } from './predicted.ts'

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
  }
}

function predict(overrides: Partial<PredictedDeps>, pinned: number | null = null) {
  const objects: Record<string, unknown> = {
    'service shop/web': { id: 'shop/web', desired: 2, pinned },
    'app shop': { spec: { services: [{ name: 'web', scale: RULES }] } },
  }
  return predictedInstances({
    snapshot: { get: (kind: string, key: string) => objects[`${kind} ${key}`] } as unknown as Snapshot,
    forecast: () => [['shop/web', forecast(720)]],
    forecastOf: () => forecast(720),
    startTimeMs: () => 5_000,
    machineLeadMs: () => 90_000,
    attempt: (_, work) => work(),
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
})
