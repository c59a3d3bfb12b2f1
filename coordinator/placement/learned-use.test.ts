import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { seededRandom } from '../../shared/random.ts'
import { createLearnedUse } from './learned-use.ts'
import { DEFAULT_CHARGE } from './requests.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'

const MiB = 2 ** 20
const unit = (cpuMillis: number, memoryBytes: number) => ({ reservations: { cpuMillis, memoryBytes } }) as unknown as UnitSpec
const FREE = unit(0, 0)
const LARGE = { cpuMillis: 64_000, memoryBytes: 2 ** 38 }

/** Samples every 10 s from `fromS` to `toS`. */
function feed(
  use: ReturnType<typeof createLearnedUse>,
  pool: string | null,
  fromS: number,
  toS: number,
  cpu: number,
  memory = 100,
) {
  for (let atS = fromS; atS < toS; atS += 10)
    use.sample('shop/web', { node: 'n', pool, most: LARGE }, { cpuMillis: cpu, memoryBytes: memory * MiB }, atS * 1000)
}

describe('learned use', () => {
  it('charges the default until ten minutes were seen, then what was measured, within a bucket of 15 %', () => {
    const use = createLearnedUse()
    feed(use, null, 0, 590, 400, 300)
    expect(use.chargeOf('shop/web', FREE)).toEqual(DEFAULT_CHARGE)
    feed(use, null, 590, 700, 400, 300)
    const charge = use.chargeOf('shop/web', FREE)
    expect(charge.learned).toBe(true)
    expect(charge.cpuMillis).toBeGreaterThanOrEqual(400)
    expect(charge.cpuMillis).toBeLessThanOrEqual(460)
    expect(charge.memoryBytes).toBeGreaterThanOrEqual(300 * MiB)
    expect(charge.memoryBytes).toBeLessThanOrEqual(345 * MiB)
  })

  it('takes the 95th percentile: rare peaks below one in twenty are not charged', () => {
    const use = createLearnedUse()
    for (let index = 0; index < 1000; index += 1) feed(use, null, index * 10, index * 10 + 10, index % 50 === 0 ? 4000 : 100)
    expect(use.learned('shop/web', null)?.cpuMillis).toBeLessThan(120)
  })

  it('a reservation stands, in the dimension that has one', () => {
    const use = createLearnedUse()
    feed(use, null, 0, 1200, 400)
    expect(use.chargeOf('shop/web', unit(250, 0)).cpuMillis).toBe(250)
    expect(use.chargeOf('shop/web', unit(250, 0)).memoryBytes).toBeGreaterThanOrEqual(100 * MiB)
    expect(use.chargeOf('shop/web', unit(250, 64)).learned).toBeUndefined()
  })

  it('is kept per pool, and over all pools where a pool has seen nothing', () => {
    const use = createLearnedUse()
    feed(use, 'slow', 0, 1200, 800)
    feed(use, 'fast', 0, 1200, 200)
    expect(use.learned('shop/web', 'slow')?.cpuMillis).toBeGreaterThanOrEqual(800)
    expect(use.learned('shop/web', 'fast')?.cpuMillis).toBeLessThan(240)
    expect(use.learned('shop/web', 'new')?.cpuMillis).toBeGreaterThanOrEqual(800)
  })

  it('does not swing: what stays within a fifth changes nothing, and no charge changes twice in ten minutes', () => {
    const use = createLearnedUse()
    const changes: string[] = []
    use.onChange((service) => changes.push(service))
    for (let minute = 0; minute < 600; minute += 1) feed(use, null, minute * 60, minute * 60 + 60, 400 + (minute % 2) * 20)
    expect(changes).toHaveLength(1)
    feed(use, null, 36_000, 36_590, 4000)
    expect(changes.length).toBeLessThanOrEqual(2)
  })

  it('forgets: after a week of less use the charge has come down', () => {
    const use = createLearnedUse()
    feed(use, null, 0, 86_400, 1000)
    const before = use.learned('shop/web', null)?.cpuMillis ?? 0
    feed(use, null, 86_400, 8 * 86_400, 100)
    expect(before).toBeGreaterThanOrEqual(1000)
    expect(use.learned('shop/web', null)?.cpuMillis).toBeLessThan(120)
  })

  it('row 13: one agent that lies moves the charge of a service on three nodes or more no further than the peak of the others', async () => {
    await fc.assert(
      fc.property(fc.integer({ min: 3, max: 25 }), fc.integer({ min: 1, max: 10 }), fc.nat(2), (nodes, rate, seed) => {
        const use = createLearnedUse()
        const random = seededRandom(seed + 1)
        const most = { cpuMillis: 4_000, memoryBytes: 16 * 2 ** 30 }
        for (let atMs = 0; atMs < 7_200_000; atMs += 20_000) {
          for (let node = 1; node < nodes; node += 1)
            use.sample(
              'shop/web',
              { node: `n${node}`, pool: 'p', most },
              { cpuMillis: 100 + 20 * random.next(), memoryBytes: 100 * MiB },
              atMs,
            )
          for (let again = 0; again < rate; again += 1)
            use.sample('shop/web', { node: 'liar', pool: 'p', most }, { cpuMillis: 1e12, memoryBytes: 1e300 }, atMs)
        }
        const charge = use.chargeOf('shop/web', FREE, 'p')
        expect(charge.cpuMillis).toBeGreaterThanOrEqual(100)
        expect(charge.cpuMillis).toBeLessThanOrEqual(140)
        expect(charge.memoryBytes).toBeLessThanOrEqual(116 * MiB)
      }),
      { numRuns: 20 },
    )
  })

  it('nothing is charged that no node of the service has, nor counted that an instance cannot have used', () => {
    const use = createLearnedUse()
    const most = { cpuMillis: 4_000, memoryBytes: 2 ** 30 }
    for (let atS = 0; atS < 1200; atS += 10)
      use.sample('shop/web', { node: 'n', pool: null, most }, { cpuMillis: 1e9, memoryBytes: 1e15 }, atS * 1000)
    expect(use.learned('shop/web', null)).toEqual(most)
  })

  it('peaks of one node at a time count in full once others had them too', () => {
    const use = createLearnedUse()
    for (let atS = 0; atS < 86_400; atS += 60)
      for (const [index, node] of ['a', 'b', 'c'].entries()) {
        const cpuMillis = (atS / 600) % 3 < 1 === (index === 0) ? 400 : 100
        use.sample('shop/web', { node, pool: null, most: LARGE }, { cpuMillis, memoryBytes: MiB }, atS * 1000)
      }
    expect(use.learned('shop/web', null)?.cpuMillis).toBeGreaterThanOrEqual(400)
  })

  it('row 13: ignores values that are no amounts', () => {
    const use = createLearnedUse()
    for (const bad of [Number.NaN, -1, Number.POSITIVE_INFINITY]) feed(use, null, 0, 1200, bad)
    expect(use.learned('shop/web', null)).toBeNull()
  })
})
