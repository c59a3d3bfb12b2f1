import { beforeAll, describe, expect, it } from 'vitest'
import { aPool } from '../../test/builders/records.ts'
import { aScale, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import type { ScaleRules } from '../../shared/model/app.ts'
import { DEFAULT_FLEET_CONFIG } from '../fleet/config.ts'
import { demandOf } from './demand.ts'
import { POLICIES, policiesNamed } from './policies.ts'
import { quadraticAtEnd } from './policies/published.ts'
import { simPool } from './pools.ts'
import { reportHtml } from './report-html.ts'
import { DEFAULT_POLICY_SETTINGS } from './policy.ts'
import { type RunResult, runPolicy, type RunSetup, type TimePoint } from './run.ts'
import { DEFAULT_SERVICE_MODEL, serviceTables } from './service-model.ts'
import type { Trace } from './trace.ts'

const HOUR = 3_600_000
const spec = aServiceSpec({
  unit: aUnitSpec({ reservations: { cpuMillis: 500, memoryBytes: 2 ** 29 }, load: [{ kind: 'cpu' }] }),
  scale: aScale({ max: 60, predict: 'auto' }),
})

/** A day's sine from 2 to 14 instances' worth in steps of 5 min, with a jump on the last day that nobody foresees. */
function daily(days: number): Trace {
  const values = Float64Array.from({ length: days * 288 }, (_, index) => {
    const jump = index > days * 288 - 40 && index < days * 288 - 20 ? 6 : 0
    return 8 - 6 * Math.cos((2 * Math.PI * index) / 288) + jump
  })
  return { name: 'daily', startMs: 0, stepMs: 300_000, values }
}

/** From 8 to 18 h twelve instances' worth, else two; half an hour in between. */
function officeHours(days: number): Trace {
  const values = Float64Array.from({ length: days * 288 }, (_, index) => {
    const hour = (index % 288) / 12
    return 2 + 10 * Math.max(0, Math.min(1, 2 * (hour - 8), 2 * (18 - hour)))
  })
  return { name: 'office hours', startMs: 0, stepMs: 300_000, values }
}

function setup(fields: Partial<RunSetup> = {}, bootMs = 240_000): RunSetup {
  const demand = demandOf(daily(4), 1)
  const pool = aPool({ capacity: { cpuMillis: 2_000, memoryBytes: 2 ** 32, diskBytes: 0, slots: 50 }, max: 30 })
  return {
    demand,
    fromMs: 72 * HOUR,
    toMs: demand.endMs,
    app: 'shop',
    spec,
    rules: spec.scale ?? aScale(),
    tables: serviceTables(DEFAULT_SERVICE_MODEL),
    pools: [simPool({ ...pool, capacity: { ...pool.capacity, diskBytes: 2 ** 34 } }, 'shop/web', spec, bootMs)],
    startTimeMs: 10_000,
    seed: 3,
    record: true,
    ...fields,
  }
}

/** The counts of Rubato's reactive policy under other rules or settings, and what the run came to. */
function runWith(rules: Partial<ScaleRules>, fields: Partial<RunSetup> = {}) {
  const scale = aScale({ max: 60, ...rules })
  const given = setup({ spec: { ...spec, scale }, rules: scale, ...fields })
  return runPolicy(policiesNamed('rubato-reactive')[0] ?? expect.fail(), given)
}

describe('what the coordinator was told', () => {
  it('a schedule raises the minimum, ahead of its time by what machines and instances take', () => {
    const at = (timeline: readonly TimePoint[], hour: number) =>
      timeline.findLast(({ atMs }) => atMs <= (72 + hour) * HOUR)?.ready ?? expect.fail()
    const schedules = [
      { at: '0 8 * * *', timeZone: 'UTC', min: 30, max: 60 },
      { at: '0 11 * * *', timeZone: 'UTC', min: 1, max: 60 },
    ]
    const { timeline, decisions } = runWith({ schedules })
    expect(at(timeline, 7)).toBeLessThan(20)
    expect(at(timeline, 8.1)).toBeGreaterThanOrEqual(30)
    expect(at(timeline, 15)).toBeLessThan(30)
    expect(decisions.find(({ reason }) => reason.includes('schedule "0 8 * * *" UTC comes in'))).toBeDefined()
  })

  it('an objective that is missed moves the threshold', () => {
    // One request at a time: load and the time of an answer are closely bound.
    const tables = serviceTables({ ...DEFAULT_SERVICE_MODEL, workers: 1, latencyMs: 400 })
    const rules = { lowPercent: 90, highPercent: 90 }
    const without = runWith(rules, { tables })
    const { metrics } = runWith({ ...rules, objective: { latencyP95Ms: 400 } }, { tables })
    expect(metrics.beyondObjective).toBeLessThan(0.75 * without.metrics.beyondObjective)
    expect(metrics.machineHours).toBeGreaterThan(without.metrics.machineHours)
  })

  it('a budget stops buying, and gives back what it cannot pay', () => {
    const fleet = { ...DEFAULT_FLEET_CONFIG, budgetUsdPerMonth: 1 }
    const free = runWith({}).metrics.costUsd
    const { metrics, decisions } = runWith({}, { settings: { ...DEFAULT_POLICY_SETTINGS, fleet } })
    expect(free).toBeGreaterThan(1.5)
    expect(metrics.costUsd).toBeLessThan(1.3)
    expect(decisions.some(({ reason }) => reason.includes('over $1.00'))).toBe(true)
  })

  it('the pace of the fleet', () => {
    const fleet = { ...DEFAULT_FLEET_CONFIG, minNodeAgeMs: 12 * HOUR }
    const slow = runWith({}, { settings: { ...DEFAULT_POLICY_SETTINGS, fleet } })
    expect(slow.metrics.machineHours).toBeGreaterThan(1.05 * runWith({}).metrics.machineHours)
  })
})

describe('a run', () => {
  const results = new Map<string, RunResult>()
  beforeAll(() => {
    for (const policy of POLICIES) results.set(policy.id, runPolicy(policy, setup()))
  })
  const of = (id: string) => results.get(id)?.metrics ?? expect.fail(`no ${id}`)

  it('gives the same for the same seed, and something else for another', () => {
    const [policy] = policiesNamed('rubato')
    if (policy === undefined) return expect.fail()
    expect(runPolicy(policy, setup())).toEqual(results.get('rubato'))
    expect(runPolicy(policy, setup({ seed: 4 })).metrics).not.toEqual(of('rubato'))
  })

  it('every policy follows the demand: some capacity at all times, none without end, machines gone when they are not needed', () => {
    for (const [id, { metrics, timeline }] of results) {
      expect(
        timeline.every(({ ready }) => ready > 0),
        id,
      ).toBe(true)
      expect(metrics.underTime, id).toBeLessThan(id === 'fixed-mean' ? 70 : 60)
      expect(metrics.machineHours, id).toBeGreaterThan(24 * 1.5)
      expect(metrics.machineHours, id).toBeLessThan(24 * 8)
      const [machines] = [timeline.map((point) => point.machines)]
      if (!id.startsWith('fixed')) expect(Math.min(...machines), id).toBeLessThan(Math.max(...machines) / 2)
    }
  })

  it('B6: the forecast spares most of the time that a machine’s boot costs', () => {
    expect(of('rubato').underTime).toBeLessThanOrEqual(of('rubato-reactive').underTime)
    const demand = demandOf(officeHours(4), 1)
    const slow = (id: string) => runPolicy(policiesNamed(id)[0] ?? expect.fail(), setup({ demand }, 1_800_000)).metrics
    expect(slow('hpa').underTime).toBeGreaterThan(0.5)
    expect(slow('rubato').underTime).toBeLessThan(slow('hpa').underTime / 2)
  })

  it('what is ordered for a burst that ends before it has booted is cancelled, and not paid for to the end', () => {
    const values = Float64Array.from({ length: 3 * 48 }, (_, index) => (index >= 76 && index < 78 ? 12 : 2))
    const demand = demandOf({ name: 'burst', startMs: 0, stepMs: 300_000, values }, 1)
    const { decisions } = runPolicy(
      policiesNamed('rubato-reactive')[0] ?? expect.fail(),
      setup({ demand, fromMs: 4 * HOUR, toMs: demand.endMs }, 1_800_000),
    )
    const bought = decisions.flatMap(({ kind, what, atMs }) => (kind === 'buy' && atMs > 6 * HOUR ? [{ what, atMs }] : []))
    expect(bought.length).toBeGreaterThan(1)
    for (const { what, atMs } of bought) {
      const gone = decisions.find((each) => each.kind === 'terminate' && what.startsWith(`${each.what} `))
      expect(gone?.reason).toContain('wanted no more')
      expect((gone?.atMs ?? Number.POSITIVE_INFINITY) - atMs).toBeLessThan(1_800_000)
    }
  })

  it('a fixed count never changes, and machine hours are what its machines make', () => {
    const { timeline, metrics } = results.get('fixed') ?? expect.fail()
    const counts = new Set(timeline.slice(80).map(({ machines }) => machines))
    expect(counts.size).toBe(1)
    expect(metrics.costUsd).toBeCloseTo(metrics.machineHours * 0.1, 6)
  })

  it('every decision has a time and a reason, and the report holds them, escaped', () => {
    const result = results.get('rubato') ?? expect.fail()
    expect(result.decisions.length).toBeGreaterThan(10)
    for (const { atMs, reason } of result.decisions) {
      expect(atMs).toBeGreaterThanOrEqual(72 * HOUR)
      expect(reason).not.toBe('')
    }
    const html = reportHtml({
      heading: 'shop/web under <daily>',
      setup: [['demand', 'daily']],
      runs: [{ title: 'Rubato', source: 'here', bootMs: 240_000, result }],
    })
    expect(html).toContain('&lt;daily&gt;')
    expect(html).not.toMatch(/(?:src|href)="(?!#)|url\(|@import|<script/)
    expect(html.match(/<svg [^>]*role="img"/g)).toHaveLength(4)
    expect(html.split('<tr><td>').length - 1).toBe(result.decisions.length)
  })

  it('a machine billed by the hour costs whole hours', () => {
    const base = setup()
    const pools = base.pools.map((pool) => ({ ...pool, billing: 'hour' as const }))
    const [policy] = policiesNamed('hpa')
    const byHour = runPolicy(policy ?? expect.fail(), { ...base, pools }).metrics
    expect(byHour.costUsd).toBeGreaterThan(0.1 * byHour.machineHours)
  })
})

describe('policies', () => {
  it('are named, with a hint for a slip, and the HPA takes a target', () => {
    expect(policiesNamed('rubato, hpa:60').map(({ id }) => id)).toEqual(['rubato', 'hpa:60'])
    expect(() => policiesNamed('rubatto')).toThrow('There is no policy "rubatto"')
  })

  it('Reg’s parabola goes through a parabola', () => {
    const values = Array.from({ length: 30 }, (_, x) => 2 + 3 * x - 0.1 * x * x)
    expect(quadraticAtEnd(values)).toBeCloseTo(values.at(-1) ?? 0, 6)
  })
})
