import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aScale } from '../../test/builders/specs.ts'
import { createLoadWindow } from './load-window.ts'
import { type LoadSummary, planReplicas, type ReplicasInput, type ScaleAction, upperThreshold } from './plan-replicas.ts'

const load = (fields: Partial<LoadSummary> = {}): LoadSummary => ({
  demandPercent: 50,
  meanPercent: 50,
  settledMs: 30_000,
  coveredMs: 30_000,
  peakDemandPercent: fields.demandPercent ?? 50,
  completeMs: 600_000,
  backlogKnown: false,
  sustainedPercent: null,
  arrivalPercent: null,
  parts: null,
  growthPercentPerS: 0,
  ...fields,
})
const input = (fields: Partial<ReplicasInput> = {}): ReplicasInput => ({
  serviceId: 'shop/web',
  rules: aScale(),
  boundsNote: null,
  forecast: null,
  wanted: 1,
  pinned: null,
  excluded: 0,
  ready: fields.wanted ?? 1,
  load: load(),
  leadMs: 0,
  lastStep: null,
  rolloutUnhealthy: false,
  memoryLed: false,
  meanBeforePercent: null,
  ...fields,
})
const wish = (fields: Partial<ReplicasInput>) => planReplicas(input(fields)).actions[0]?.to ?? null

describe('planReplicas', () => {
  it('M4: the threshold is 60 % at one replica and rises towards 80 %, or follows explicit steps', () => {
    expect([1, 2, 4, 20].map((n) => upperThreshold(aScale(), n))).toEqual([60, 70, 75, 79])
    const rules = aScale({
      steps: [
        { replicas: 1, percent: 50 },
        { replicas: 3, percent: 70 },
      ],
    })
    expect([1, 2, 3, 9].map((n) => upperThreshold(rules, n))).toEqual([50, 50, 70, 70])
  })
  it('goes up in one step to the smallest count that carries the demand', () => {
    expect(wish({ wanted: 2, load: load({ demandPercent: 150, meanPercent: 75 }) })).toBe(3)
    expect(wish({ wanted: 2, load: load({ demandPercent: 140, meanPercent: 70 }) })).toBe(null)
    expect(wish({ wanted: 4, ready: 4, load: load({ demandPercent: 380, meanPercent: 95 }) })).toBe(5)
  })
  it('takes half as many again when all are full, at most once per window, and never more than three times the ready', () => {
    const full = load({ demandPercent: 400, meanPercent: 100 })
    expect(wish({ wanted: 4, load: full })).toBe(6)
    expect(
      wish({
        wanted: 8,
        ready: 8,
        load: load({ demandPercent: 800, meanPercent: 100 }),
        lastStep: { from: 4, to: 8, agoMs: 60_000 },
      }),
    ).toBe(16)
    expect(
      wish({
        wanted: 8,
        ready: 1,
        load: load({ demandPercent: 100, meanPercent: 100 }),
        lastStep: { from: 4, to: 8, agoMs: 60_000 },
      }),
    ).toBe(null)
    expect(wish({ wanted: 8, ready: 4, load: full, lastStep: { from: 4, to: 8, agoMs: 10_000 } })).toBe(null)
  })
  it('V5: acts on a jump that held for some reports without waiting for the mean of the window, but not on a small excess', () => {
    const jump = (sustainedPercent: number | null) => wish({ wanted: 2, load: load({ demandPercent: 100, sustainedPercent }) })
    expect(jump(190)).toBe(3)
    expect(jump(160)).toBe(null)
    expect(jump(null)).toBe(null)
  })
  it('carries steady growth on until an instance ordered now would be ready, at most to twice the demand', () => {
    const growing = (growthPercentPerS: number, leadMs: number) =>
      wish({ wanted: 2, leadMs, load: load({ demandPercent: 130, sustainedPercent: 130, growthPercentPerS }) })
    expect(growing(0.5, 60_000)).toBe(3)
    expect(growing(0.5, 0)).toBe(null)
    expect(growing(50, 240_000)).toBe(4)
    // What a slow machine takes is no reason to carry minutes of growth on for half an hour.
    expect(growing(0.1, 1_800_000)).toBe(growing(0.1, 240_000))
    expect(growing(0.1, 240_000)).toBeGreaterThan(growing(0.1, 60_000) ?? 0)
    const falls = { wanted: 6, leadMs: 240_000, load: load({ demandPercent: 150, growthPercentPerS: 1, sustainedPercent: 150 }) }
    expect(planReplicas(input(falls)).decision.code).toBe('steady')
  })
  it('goes by the requests that arrive when instances are full, and waits for those that start once these explain it', () => {
    const full = load({ demandPercent: 150, meanPercent: 100, sustainedPercent: 200, arrivalPercent: 700 })
    expect(wish({ wanted: 2, load: full })).toBe(9)
    expect(wish({ wanted: 9, ready: 2, load: full, lastStep: { from: 2, to: 9, agoMs: 60_000 } })).toBe(null)
    // Callers that wait for answers send no more than is served: that shows nothing, and the bold step stays.
    expect(wish({ wanted: 2, load: { ...full, arrivalPercent: 200 } })).toBe(3)
    // A storm of retries does not run to the most.
    expect(wish({ wanted: 2, load: { ...full, arrivalPercent: 50_000 } })).toBe(21)
  })
  it('acts on a trusted forecast ahead of the load, and goes down only as far as both agree', () => {
    const forecast = {
      atMs: 0,
      method: 'profile × level',
      peak: 740,
      expected: [],
      upper: [],
      stepMs: 60_000,
      horizonMs: 240_000,
      errorVsPersistence: 0.5,
      isTrusted: true,
      isJudged: true,
    }
    const low = load({ demandPercent: 120, meanPercent: 60 })
    const up = planReplicas(input({ wanted: 2, load: low, forecast }))
    expect(up.actions[0]).toMatchObject({ to: 10, reason: 'forecast 740 % in 4 min by profile × level' })
    expect(up.decision.code).toBe('forecast')
    expect(wish({ wanted: 2, load: low, forecast: { ...forecast, isTrusted: false } })).toBe(null)
    expect(planReplicas(input({ wanted: 10, forecast })).decision.code).toBe('forecast-hold')
    expect(wish({ wanted: 16, forecast })).toBe(10)
  })
  it('goes down only after a quiet stabilization window, at most by half', () => {
    const quiet = load({ demandPercent: 10, meanPercent: 1 })
    expect(wish({ wanted: 8, load: quiet, lastStep: { from: 4, to: 8, agoMs: 119_000 } })).toBe(null)
    expect(wish({ wanted: 8, load: quiet, lastStep: { from: 4, to: 8, agoMs: 120_000 } })).toBe(4)
    expect(wish({ wanted: 8, load: quiet, rolloutUnhealthy: true })).toBe(null)
    expect(wish({ wanted: 8, load: load({ demandPercent: 10, peakDemandPercent: 550 }) })).toBe(null)
  })
  it('rows 12 and 14: no data holds, missing data never takes away, and the result is never below min or one', () => {
    const none = load({ demandPercent: null, meanPercent: null, peakDemandPercent: null, completeMs: 0, coveredMs: 0 })
    expect(planReplicas(input({ wanted: 5, load: none })).decision).toMatchObject({ code: 'no-data', wish: 5 })
    expect(planReplicas(input({ wanted: 5, load: load({ demandPercent: 1, completeMs: 3_000 }) })).decision.code).toBe(
      'missing-data',
    )
    expect(
      wish({ wanted: 2, rules: aScale({ min: 0 }), load: load({ demandPercent: 0, meanPercent: 0, peakDemandPercent: 0 }) }),
    ).toBe(1)
  })
  it('keeps its hands off a pinned service, and moves one that is out of bounds into them at once', () => {
    expect(planReplicas(input({ wanted: 2, pinned: 5, load: load({ demandPercent: 900 }) })).actions).toEqual([])
    expect(wish({ wanted: 50 })).toBe(40)
  })
  it('does not count instances that crash-loop, nor run to the most because of them', () => {
    expect(wish({ wanted: 4, ready: 2, excluded: 2, load: load({ demandPercent: 150, meanPercent: 75 }) })).toBe(5)
    expect(wish({ wanted: 30, ready: 2, excluded: 28, load: load({ demandPercent: 150, meanPercent: 75 }) })).toBe(null)
    expect(planReplicas(input({ wanted: 3, ready: 0, excluded: 3 })).decision.code).toBe('none-healthy')
  })
  it('holds when a step did not lower memory use', () => {
    const full = {
      wanted: 2,
      load: load({ demandPercent: 180, meanPercent: 90 }),
      memoryLed: true,
      lastStep: { from: 1, to: 2, agoMs: 60_000 },
    }
    expect(planReplicas(input({ ...full, meanBeforePercent: 91 })).decision.code).toBe('memory-hold')
    expect(wish({ ...full, meanBeforePercent: 140 })).toBe(3)
  })
  it('I3: for any input the result is a whole number within the bounds', () => {
    const any = fc.oneof(fc.double(), fc.constantFrom(Number.NaN, 1e308, -1, 0), fc.constant(null))
    fc.assert(
      fc.property(
        fc.nat(100),
        fc.nat(100),
        fc.nat(100),
        any,
        any,
        any,
        fc.nat(400_000),
        fc.nat(5),
        fc.nat(60),
        (wanted, excluded, ready, d, m, p, ms, min, more) => {
          const rules = aScale({ min, max: min + more })
          const summary = load({ demandPercent: d, meanPercent: m, peakDemandPercent: p, completeMs: ms })
          const { actions, decision } = planReplicas(input({ rules, wanted, excluded, ready, load: summary }))
          expect(Number.isInteger(decision.wish)).toBe(true)
          expect(decision.wish).toBeGreaterThanOrEqual(Math.max(1, min))
          expect(decision.wish).toBeLessThanOrEqual(Math.max(1, min + more))
          if (ms < rules.downWindowMs && wanted <= Math.max(1, rules.max))
            for (const action of actions) expect(action.to).toBeGreaterThan(action.from)
        },
      ),
      { numRuns: 2_000 },
    )
  })
})

/** The rule alone against an ideal balancer: ready instances share the demand, each up to 100 %. */
function simulate(demandAt: (s: number) => number, launchS: number, seconds: number) {
  const rules = aScale({ max: 100 })
  const window = createLoadWindow(rules.windowMs, rules.downWindowMs)
  let wanted = 1
  let lastStep: { from: number; to: number; atS: number } | null = null
  let readyAt = [0]
  const counts: number[] = []
  for (let s = 0; s < seconds; s += 1) {
    const ready = readyAt.filter((at) => at <= s).length
    const each = Math.min(100, demandAt(s) / Math.max(1, ready))
    window.add(
      s * 1000,
      Array.from({ length: ready }, () => ({ loadPercent: each, demand: null })),
    )
    const step: ReplicasInput['lastStep'] =
      lastStep === null ? null : { from: lastStep.from, to: lastStep.to, agoMs: (s - lastStep.atS) * 1000 }
    const [action]: readonly ScaleAction[] = planReplicas(
      input({ rules, wanted, ready, load: window.summary(s * 1000), lastStep: step }),
    ).actions
    if (action) {
      lastStep = { from: action.from, to: action.to, atS: s }
      wanted = action.to
      readyAt = readyAt.sort((a, b) => a - b).slice(0, wanted)
      while (readyAt.length < wanted) readyAt.push(s + launchS)
    }
    counts.push(wanted)
  }
  const needed = (demand: number) => {
    let n = 1
    while (demand / n > upperThreshold(rules, n)) n += 1
    return n
  }
  const turns = counts.filter((n, i) => i > 1 && Math.sign(n - (counts[i - 1] ?? n)) !== 0).length
  return { counts, final: counts.at(-1) ?? 0, peak: Math.max(...counts), needed, turns }
}

describe('the rule over time', () => {
  it.each([1, 10, 60, 240])('a step, a ramp and a spike with a launch delay of %i s settle without a run to max', (launchS) => {
    for (const demand of [120, 250, 700, 1500]) {
      const stepped = simulate((s) => (s < 60 ? 20 : demand), launchS, 4_000)
      expect(stepped.final).toBeGreaterThanOrEqual(stepped.needed(demand))
      expect(stepped.peak).toBeLessThanOrEqual(3 * stepped.needed(demand) + 1)
      expect(new Set(stepped.counts.slice(-1_500)).size).toBe(1)
      const ramp = simulate((s) => Math.min(demand, (demand * s) / 900), launchS, 4_000)
      expect(ramp.peak).toBeLessThanOrEqual(3 * ramp.needed(demand) + 1)
      expect(new Set(ramp.counts.slice(-1_500)).size).toBe(1)
      const spike = simulate((s) => (s >= 100 && s < 160 ? demand : 40), launchS, 4_000)
      expect(spike.final).toBe(1)
    }
  })
  it('settles for any constant demand and launch delay', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 2_000 }), fc.integer({ min: 1, max: 240 }), (demand, launchS) => {
        const run = simulate((s) => (s < 30 ? 10 : demand), launchS, 5_000)
        expect(run.final).toBeGreaterThanOrEqual(run.needed(demand))
        expect(run.peak).toBeLessThanOrEqual(3 * run.needed(demand) + 1)
        expect(new Set(run.counts.slice(-1_500)).size).toBe(1)
      }),
      { numRuns: 25 },
    )
  }, 60_000)
})

describe('load window', () => {
  it('row 13: a load of NaN, a negative and 1e308 are dropped like a report that did not come', () => {
    const window = createLoadWindow(30_000, 120_000)
    for (const [i, value] of [50, Number.NaN, -1, 1e308, 50].entries())
      window.add(i * 1000, [{ loadPercent: value, demand: null }])
    expect(window.summary(4_000)).toMatchObject({ demandPercent: 50, completeMs: 0 })
  })
  it('sums first and then takes the mean, so that load that moves counts once', () => {
    const window = createLoadWindow(10_000, 20_000)
    window.add(1_000, [{ loadPercent: 100, demand: null }])
    window.add(2_000, [
      { loadPercent: 50, demand: null },
      { loadPercent: 50, demand: null },
    ])
    expect(window.summary(2_000).demandPercent).toBe(100)
  })
  it('a missing report counts as nothing for the demand and breaks completeness', () => {
    const window = createLoadWindow(10_000, 20_000)
    for (let s = 0; s < 9; s += 1) window.add(s * 1000, [{ loadPercent: 60, demand: null }])
    expect(window.summary(8_000).completeMs).toBe(8_000)
    window.add(9_000, [
      { loadPercent: 60, demand: null },
      { loadPercent: null, demand: null },
    ])
    expect(window.summary(9_000)).toMatchObject({ demandPercent: 60, completeMs: 0 })
  })
  it('tells growth from a step, a spike and noise', () => {
    const growthOf = (sumAt: (s: number) => number) => {
      const window = createLoadWindow(30_000, 120_000)
      let most = 0
      for (let s = 0; s < 240; s += 1) {
        window.add(s * 1000, [{ loadPercent: sumAt(s), demand: null }])
        most = Math.max(most, window.summary(s * 1000, 60_000).growthPercentPerS)
      }
      return most
    }
    expect(growthOf((s) => s / 4)).toBeCloseTo(0.25)
    expect(growthOf((s) => (s < 100 ? 10 : 90))).toBe(0)
    expect(growthOf((s) => (s >= 100 && s < 110 ? 90 : 10))).toBe(0)
    expect(growthOf((s) => 50 + 5 * Math.sin(s))).toBeLessThan(0.05)
  })
  it('takes instances that come back one by one for no growth', () => {
    const window = createLoadWindow(30_000, 120_000)
    let most = 0
    for (let s = 0; s < 100; s += 1) {
      const reporting = s < 20 ? 10 : s < 30 ? 4 : Math.min(10, 4 + Math.floor((s - 30) / 8))
      window.add(
        s * 1000,
        Array.from({ length: reporting }, () => ({ loadPercent: 50, demand: null })),
      )
      most = Math.max(most, window.summary(s * 1000, 60_000).growthPercentPerS)
    }
    expect(most).toBe(0)
    // A coordinator that has just started hears one node after the other.
    const begun = createLoadWindow(30_000, 120_000)
    for (let s = 0; s < 60; s += 1) {
      const reporting = Math.min(10, 1 + Math.floor(s / 5))
      begun.add(
        s * 1000,
        Array.from({ length: reporting }, () => ({ loadPercent: 50, demand: null })),
        0,
        reporting < 10 ? 'perhaps serving' : 'none',
      )
      expect(begun.summary(s * 1000, 30_000).growthPercentPerS).toBe(0)
    }
  })
  it('holds samples over a time in which nothing happened as if each had been taken', () => {
    const [looked, rested] = [createLoadWindow(30_000, 120_000), createLoadWindow(30_000, 120_000)]
    const report = [{ loadPercent: 40, demand: null }]
    for (let s = 0; s < 200; s += 1) for (const window of [looked, rested]) window.add(s * 1000, report)
    expect(rested.isConstant(199_000)).toBe(true)
    for (let s = 200; s < 900; s += 1) looked.add(s * 1000, report)
    rested.holdUntil(899_000)
    rested.add(899_000, report)
    expect(rested.summary(899_000)).toEqual(looked.summary(899_000))
  })
  it('answers as a window that looks at every sample anew', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 4 })), { minLength: 1, maxLength: 300 }),
        (loads) => {
          const window = createLoadWindow(10_000, 40_000)
          const sums: { sum: number; n: number; mean: number | null }[] = []
          for (const [s, [percent, n]] of loads.entries()) {
            window.add(
              s * 1000,
              Array.from({ length: n }, () => ({ loadPercent: percent, demand: null })),
            )
            sums.push({ sum: percent * n, n, mean: null })
            const recent = sums.slice(-10).filter((each) => each.n > 0)
            const mean = recent.length === 0 ? null : recent.reduce((sum, each) => sum + each.sum, 0) / recent.length
            sums[s] = { sum: percent * n, n, mean }
            const { demandPercent, peakDemandPercent } = window.summary(s * 1000)
            const peaks = sums.slice(-40).flatMap((each) => (each.mean === null ? [] : [each.mean]))
            expect(demandPercent ?? -1).toBeCloseTo(mean ?? -1, 6)
            expect(peakDemandPercent ?? -1).toBeCloseTo(peaks.length === 0 ? -1 : Math.max(...peaks), 6)
          }
        },
      ),
      { numRuns: 60 },
    )
  })
  it('counts a backlog as demand, and stays bounded over hours', () => {
    const window = createLoadWindow(3_600_000, 7_200_000)
    for (let s = 0; s < 40_000; s += 1) if (window.isDue(s * 1000)) window.add(s * 1000, [{ loadPercent: 100, demand: 3.4 }])
    expect(window.summary(39_999_000)).toMatchObject({ demandPercent: 340, backlogKnown: true })
  })
})
