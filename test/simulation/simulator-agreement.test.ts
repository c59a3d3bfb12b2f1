/**
 * The policy simulator calls the coordinator's plans over a model of its own. Here the whole coordinator with real agents lives
 * through the same demand on the same kind of machines, and the counts of both are compared minute by minute: with what load shows
 * alone, and with a forecast that has learned from four days, on machines that take ten minutes to come. They are close, not equal: each
 * has noise of its own, and the coordinator evens nodes out, so that one is empty later. Held: on average every count is off by less than
 * a half, and no minute by more than one from what the other had within two minutes of it.
 */
import { describe, expect, it } from 'vitest'
import { rubato, rubatoReactive } from '../../coordinator/simulate/policies/rubato.ts'
import { simPool } from '../../coordinator/simulate/pools.ts'
import { runPolicy } from '../../coordinator/simulate/run.ts'
import { DEFAULT_SERVICE_MODEL, serviceTables } from '../../coordinator/simulate/service-model.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import { aPool } from '../builders/records.ts'
import { aContainerSpec, anAppSpec, aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'
import { simCluster } from './cluster.ts'

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE
const SERVICE = 'shop/web'

interface Case {
  readonly bootMs: number
  readonly predict: 'auto' | 'off'
  /** Of history before the demand begins. */
  readonly days: number
  /** Minutes from the beginning on that are compared; what comes before is the way there. */
  readonly from: number
  readonly to: number
  /** Instances' worth; the same every day. */
  demandAt(minute: number): number
}

interface Moment {
  readonly wanted: number
  readonly ready: number
  readonly machines: number
}

const pool = aPool({
  provider: 'fake',
  capacity: { cpuMillis: 2_000, memoryBytes: 2 ** 32, diskBytes: 2 ** 36, slots: 50 },
  max: 20,
})

const specOf = ({ predict, demandAt }: Case): ServiceSpec =>
  aServiceSpec({
    replicas: Math.ceil(demandAt(0) / 0.7),
    scale: aScale({ min: 1, max: 30, predict }),
    unit: aUnitSpec({
      drainMs: 500,
      reservations: { cpuMillis: 500, memoryBytes: 2 ** 29 },
      containers: [aContainerSpec({ image: 'shop/web:1' })],
    }),
  })

/** The whole coordinator, minute by minute. */
async function lived(given: Case): Promise<readonly Moment[]> {
  const { demandAt } = given
  const spec = specOf(given)
  const cluster = await simCluster({ seed: 5, hosts: 0, pools: [pool], fleet: { joinDeadlineMs: 3 * given.bootMs } })
  try {
    const { history } = cluster.lead()
    const beginMs = Math.ceil(cluster.clock.now() / MINUTE) * MINUTE
    for (let atMs = beginMs - given.days * DAY; atMs < beginMs; atMs += MINUTE)
      history.record({ subject: `service ${SERVICE}`, measure: 'demand' }, atMs, 100 * demandAt(minuteOfDay(atMs - beginMs)))
    await cluster.advance(beginMs - cluster.clock.now())
    cluster.provider.levers.bootDelayMs = given.bootMs
    cluster.demand.set(SERVICE, 100 * demandAt(0))
    await cluster.deploy(anAppSpec({ services: [spec] }))
    const moments: Moment[] = []
    for (let minute = 0; minute < given.to; minute += 1) {
      for (let part = 1; part <= 12; part += 1) {
        await cluster.advance(Math.max(0, beginMs + minute * MINUTE + part * 5_000 - cluster.clock.now()))
        cluster.demand.set(SERVICE, 100 * demandAt(minute + part / 12))
      }
      const { state } = cluster.lead()
      moments.push({
        wanted: state.snapshot.get('service', SERVICE)?.desired ?? 0,
        ready: cluster.running().size,
        machines: cluster.provider.live().length,
      })
    }
    return moments.slice(given.from)
  } finally {
    await cluster.stop()
  }
}

/** The simulator's policy. */
function simulated(given: Case): readonly Moment[] {
  const { bootMs, predict, days, from, to, demandAt } = given
  const spec = specOf(given)
  const { timeline } = runPolicy(predict === 'auto' ? rubato : rubatoReactive, {
    demand: { startMs: -days * DAY, endMs: to * MINUTE, at: (atMs) => demandAt(minuteOfDay(atMs)) },
    fromMs: 0,
    toMs: to * MINUTE,
    app: 'shop',
    spec,
    rules: spec.scale ?? aScale(),
    tables: serviceTables(DEFAULT_SERVICE_MODEL),
    pools: [simPool(pool, SERVICE, spec, bootMs)],
    startTimeMs: 2_000,
    seed: 5,
    record: true,
  })
  return Array.from({ length: to - from }, (_, index) => {
    const { wanted, ready, machines } = timeline.findLast(({ atMs }) => atMs < (from + index + 1) * MINUTE) ?? expect.fail()
    return { wanted, ready, machines }
  })
}

function minuteOfDay(sinceBeginMs: number): number {
  return (((sinceBeginMs % DAY) + DAY) % DAY) / MINUTE
}

/** By how much a count differs in each minute. */
function off(real: readonly Moment[], model: readonly Moment[], of: (moment: Moment) => number) {
  const differences = real.map((moment, index) => Math.abs(of(moment) - of(model[index] ?? expect.fail())))
  return {
    mean: differences.reduce((sum, value) => sum + value, 0) / differences.length,
    /** In the worst minute that its neighbours do not make up for. */
    worst: Math.max(
      ...real.map((moment, index) => {
        const near = model.slice(Math.max(0, index - 2), index + 3).map(of)
        const [least, most] = [Math.min(...near), Math.max(...near)]
        return Math.max(0, least - of(moment), of(moment) - most)
      }),
    ),
  }
}

const ramp = (minute: number, up: number, down: number) => Math.max(0, Math.min(1, (minute - up) / 10, (down - minute) / 10))

describe('the simulator and the whole coordinator', () => {
  it.each([
    [
      'what load shows alone, on machines that take a minute',
      { bootMs: MINUTE, predict: 'off', days: 0, from: 5, to: 50, demandAt: (minute) => 2 + 6 * ramp(minute, 10, 40) },
    ],
    [
      'a forecast of four days, on machines that take ten',
      // The first three machines teach how long one takes.
      { bootMs: 10 * MINUTE, predict: 'auto', days: 4, from: 15, to: 100, demandAt: (minute) => 6 + 8 * ramp(minute, 45, 80) },
    ],
  ] satisfies readonly (readonly [string, Case])[])(
    'come to like counts by %s',
    async (_what, given) => {
      const real = await lived(given)
      const model = simulated(given)
      const both = real.map((moment, index) => `${index}: ${JSON.stringify(moment)} ${JSON.stringify(model[index])}`).join('\n')
      expect(Math.max(...real.map(({ wanted }) => wanted)), both).toBeGreaterThanOrEqual(10)
      for (const count of ['wanted', 'ready', 'machines'] as const) {
        const { mean, worst } = off(real, model, (moment) => moment[count])
        expect(mean, `${count}\n${both}`).toBeLessThan(0.5)
        expect(worst, `${count}\n${both}`).toBeLessThanOrEqual(1)
      }
    },
    120_000,
  )
})
