import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LATENCY_BUCKETS_MS } from '../../shared/model/observation.ts'
import { aScale } from '../../test/builders/specs.ts'
import { createObjectiveBook } from './objective-book.ts'
import { createObjectiveKeeper } from './objective-keeper.ts'
import { NO_SHIFT, type ObjectiveInput, planObjective, withShift } from './plan-objective.ts'
import { upperThreshold } from './plan-replicas.ts'

const input = (fields: Partial<ObjectiveInput> = {}): ObjectiveInput => ({
  rules: aScale(),
  objectiveMs: 200,
  requests: 1_000,
  p95Ms: 180,
  meanPercent: 60,
  thresholdPercent: 70,
  isSteady: true,
  atMost: false,
  ...fields,
})
const plan = (fields: Partial<ObjectiveInput>) => planObjective(NO_SHIFT, input(fields))

describe('planObjective', () => {
  it('V16: lowers the threshold below the load at which the objective was missed', () => {
    const { code, state } = plan({ p95Ms: 260, meanPercent: 60 })
    expect(code).toBe('lowered')
    expect(70 + state.shiftPercent).toBe(55)
    expect(70 + plan({ p95Ms: 900, meanPercent: 60 }).state.shiftPercent).toBe(50)
  })
  it('raises it only with room to spare and near the threshold, and holds in between', () => {
    expect(plan({ p95Ms: 100, meanPercent: 65 })).toMatchObject({ code: 'raised', state: { shiftPercent: 2 } })
    expect(plan({ p95Ms: 100, meanPercent: 30 })).toMatchObject({ code: 'kept', state: { shiftPercent: 0 } })
    expect(plan({ p95Ms: 180, meanPercent: 65 })).toMatchObject({ code: 'kept', state: { shiftPercent: 0 } })
  })
  it('does not judge few requests, nor while instances start or are full', () => {
    expect(plan({ p95Ms: 900, requests: 99 }).code).toBe('few-requests')
    expect(plan({ p95Ms: 900, isSteady: false })).toMatchObject({ code: 'unsteady', state: { shiftPercent: 0 } })
    expect(plan({ p95Ms: null, requests: 0 }).code).toBe('few-requests')
  })
  it('gives up and returns to the threshold of the file when less load brings no faster answers', () => {
    const lowered = plan({ p95Ms: 400, meanPercent: 60 }).state
    const after = planObjective(lowered, input({ p95Ms: 390, meanPercent: 45, thresholdPercent: 55 }))
    expect(after).toMatchObject({ code: 'not-by-load', state: { shiftPercent: 0, lowered: null } })
    expect(planObjective(after.state, input({ p95Ms: 390 })).code).toBe('not-by-load')
    const relieved = planObjective(lowered, input({ p95Ms: 300, meanPercent: 45, thresholdPercent: 55 }))
    expect(relieved.code).toBe('lowered')
  })
  it('does not lower it further at the most instances', () => {
    expect(plan({ p95Ms: 400, atMost: true })).toMatchObject({ code: 'at-most', state: { shiftPercent: 0 } })
  })
  it('keeps every threshold within 20 and 95 percent, whatever is measured', () => {
    const step = fc.record({
      p95Ms: fc.oneof(fc.constant(null), fc.integer({ min: 1, max: 10_000 })),
      meanPercent: fc.integer({ min: 0, max: 100 }),
      requests: fc.integer({ min: 0, max: 500 }),
      isSteady: fc.boolean(),
      atMost: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), fc.integer({ min: 1, max: 40 }), (steps, n) => {
        let state = NO_SHIFT
        for (const fields of steps) {
          const thresholdPercent = upperThreshold(withShift(aScale(), state.shiftPercent), n)
          expect(thresholdPercent).toBeGreaterThanOrEqual(20)
          expect(thresholdPercent).toBeLessThanOrEqual(95)
          state = planObjective(state, input({ ...fields, thresholdPercent })).state
        }
      }),
      { numRuns: 300 },
    )
  })
})

const answers = (ms: number, count: number) => {
  const counts = new Array<number>(LATENCY_BUCKETS_MS.length + 1).fill(0)
  counts[LATENCY_BUCKETS_MS.findIndex((bound) => ms <= bound)] = count
  return counts
}

describe('objective book', () => {
  it('V16: reports shares of time and of answers within the objective', () => {
    const book = createObjectiveBook()
    for (let minute = 0; minute < 10; minute += 1) book.add(minute * 60_000, answers(minute < 8 ? 100 : 500, 100))
    book.add(600_000, [])
    expect(book.view(200, 0)).toMatchObject({ kept: false, shareOfTime: 0.8, shareOfRequests: 0.8 })
    expect(createObjectiveBook().view(200, 0)).toMatchObject({
      kept: null,
      p95Ms: null,
      shareOfTime: null,
      shareOfRequests: null,
    })
  })
})

describe('news of an objective', () => {
  const minute = (keeper: ReturnType<typeof createObjectiveKeeper>, number: number, ms: number, count: number) =>
    keeper.observe({
      atMs: number * 60_000,
      rules: aScale({ objective: { latencyP95Ms: 100 } }),
      objectiveMs: 100,
      answerTimes: answers(ms, count),
      meanPercent: 40,
      thresholdPercent: 60,
      isSteady: true,
      lastStepAgoMs: null,
      atMost: false,
    })

  it('one slow minute and then silence is no news', () => {
    const keeper = createObjectiveKeeper(0)
    for (let number = 0; number < 6; number += 1) {
      minute(keeper, number, 400, number === 0 ? 30 : 0)
      expect(keeper.news).toBeNull()
    }
  })

  it('two slow minutes are, until they were told, and two good ones after them', () => {
    const keeper = createObjectiveKeeper(0)
    for (let number = 0; number < 3; number += 1) minute(keeper, number, 400, 30)
    expect([keeper.news, keeper.news]).toEqual(['missed', 'missed'])
    keeper.wasTold('missed')
    expect(keeper.news).toBeNull()
    for (let number = 3; number < 6; number += 1) minute(keeper, number, 20, 30)
    expect(keeper.news).toBe('kept')
  })
})

/** A service whose answers take longer the fuller it is (one queue per instance), at a constant demand. */
function run(objectiveMs: number, baseMs: number, byLoad: boolean) {
  const keeper = createObjectiveKeeper(0)
  const rules = aScale({ objective: { latencyP95Ms: objectiveMs } })
  const demand = 300
  let n = 5
  const shifts: number[] = []
  let sinceStepMs = 600_000
  for (let s = 0; s < 7_200; s += 1) {
    const moved = withShift(rules, keeper.shiftPercent)
    let wish = n
    while (demand / wish > upperThreshold(moved, wish) && wish < 40) wish += 1
    while (wish > 1 && demand / (wish - 1) <= 0.85 * upperThreshold(moved, wish - 1)) wish -= 1
    sinceStepMs = wish === n ? sinceStepMs + 1_000 : 0
    n = wish
    const mean = demand / n
    keeper.observe({
      atMs: s * 1_000,
      rules,
      objectiveMs,
      answerTimes: answers(byLoad ? (baseMs * 3) / (1 - mean / 100) : baseMs * 3, 20),
      meanPercent: mean,
      thresholdPercent: upperThreshold(moved, n),
      isSteady: true,
      lastStepAgoMs: sinceStepMs,
      atMost: n >= 40,
    })
    shifts.push(keeper.shiftPercent)
  }
  return { view: keeper.view(objectiveMs), n, shifts, last: new Set(shifts.slice(-3_600)).size }
}

describe('objective over time', () => {
  it('V16: finds a threshold that keeps the objective, and stays there', () => {
    const { view, n, last } = run(100, 15, true)
    expect(view.kept).toBe(true)
    expect(n).toBeGreaterThan(5)
    expect(last).toBeLessThanOrEqual(3)
  })
  it('does not run to the most when load is not what makes answers slow', () => {
    const { view, n } = run(100, 100, false)
    expect(view.kept).toBe(false)
    expect(n).toBeLessThanOrEqual(10)
  })
  it('is a loosened threshold when there is room', () => {
    const { shifts } = run(5_000, 15, true)
    expect(Math.max(...shifts)).toBeGreaterThanOrEqual(0)
    expect(shifts.at(-1)).toBeGreaterThanOrEqual(0)
  })
})
