import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { aMachineRecord, aPool } from '../../test/builders/records.ts'
import { requestsOf } from '../../test/builders/requests.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { type CancellationInput, planCancellation } from './plan-cancellation.ts'
import { planCapacity } from './plan-capacity.ts'

const NOW = Date.UTC(2026, 0, 21)
const MINUTE = 60_000
const CAPACITY = { cpuMillis: 100_000, memoryBytes: 1000, diskBytes: 0, slots: 100 }
const POOL = aPool({ name: 'p', offering: 'p', provider: 'p', capacity: CAPACITY, priceUsdPerHour: 0.1, max: 20 })

/** Nine of 100 fit a machine with its tenth of headroom, ten without. */
function wanted(count: number, overrides: Partial<PlacementRequest> = {}): PlacementRequest[] {
  return requestsOf('s/a', count, { charge: { cpuMillis: 1, memoryBytes: 100, diskBytes: 0 }, ...overrides })
}

function order(id: string, agoMs: number, overrides: Partial<MachineRecord> = {}): MachineRecord {
  return aMachineRecord({ id, pool: 'p', provider: 'p', phase: 'booting', requestedAtMs: NOW - agoMs, ...overrides })
}

function node(id: string, freeBytes: number): PlacementNode {
  return assumedNode(id, CAPACITY, { free: { ...CAPACITY, memoryBytes: freeBytes }, pool: 'p' })
}

function plan(overrides: Partial<CancellationInput>, pool: Partial<Pool> = {}) {
  return planCancellation(
    {
      nodes: [],
      machines: [order('old', 10 * MINUTE), order('new', 2 * MINUTE)],
      pools: [{ ...POOL, ...pool }],
      wanted: [],
      leastAgeMs: MINUTE,
      headroomPercent: 10,
      ...overrides,
    },
    NOW,
  )
}

const cancelled = (result: ReturnType<typeof plan>) => result.actions.map(({ machineId }) => machineId)

describe('cancellation of orders', () => {
  it('cancels every order when nothing is wanted, the newest first', () => {
    expect(cancelled(plan({}))).toEqual(['new', 'old'])
  })

  it('keeps the oldest orders that all that is wanted fits on', () => {
    expect(cancelled(plan({ wanted: wanted(9) }))).toEqual(['new'])
    expect(cancelled(plan({ wanted: wanted(18) }))).toEqual([])
  })

  it('counts the room on nodes that are there first', () => {
    expect(cancelled(plan({ wanted: wanted(9), nodes: [node('n', 1000)] }))).toEqual(['new', 'old'])
    expect(cancelled(plan({ wanted: wanted(9), nodes: [node('n', 500)] }))).toEqual(['new'])
  })

  it('keeps an order whose work would only fit without headroom', () => {
    expect(cancelled(plan({ wanted: wanted(10) }))).toEqual([])
  })

  it('leaves a young order alone, and says when it will be old enough', () => {
    const young = plan({ machines: [order('m', 20_000)] })
    expect(young.actions).toEqual([])
    expect(young.wakeAtMs).toBe(NOW + 40_000)
  })

  it('keeps the minimum of a pool, and machines that joined', () => {
    expect(cancelled(plan({}, { min: 1 }))).toEqual(['new'])
    expect(cancelled(plan({}, { min: 2 }))).toEqual([])
    expect(cancelled(plan({ machines: [order('m', 10 * MINUTE, { phase: 'joined' })] }))).toEqual([])
  })

  it('§8.3: an hour that is paid for is waited out', () => {
    const result = plan({ machines: [order('m', 10 * MINUTE)] }, { billing: 'hour' })
    expect(result.actions).toEqual([])
    expect(result.wakeAtMs).toBe(NOW + 40 * MINUTE)
    expect(cancelled(plan({ machines: [order('m', 55 * MINUTE)] }, { billing: 'hour' }))).toEqual(['m'])
  })

  it('leaves slow machines and their stand-ins to those who pair them', () => {
    const machines = [order('slow', 10 * MINUTE), order('stand-in', 2 * MINUTE, { standInFor: 'slow' })]
    expect(cancelled(plan({ machines }))).toEqual([])
  })

  it('cancels nothing while a custom scheduler has yet to say where its instances go', () => {
    const [own] = wanted(1)
    const request = own && { ...own, rules: { ...own.rules, scheduler: 'mine' } }
    expect(cancelled(plan({ wanted: request ? [request] : [] }))).toEqual([])
  })

  it('keeps the order of what is too large for any machine with headroom', () => {
    const large = wanted(1, { charge: { cpuMillis: 1, memoryBytes: 950, diskBytes: 0 } })
    expect(cancelled(plan({ wanted: large }))).toEqual(['new'])
  })

  it('what it cancels is not ordered again for the same work', async () => {
    const machines = fc
      .integer({ min: 1, max: 5 })
      .map((count) => Array.from({ length: count }, (_, index) => order(`m-${index}`, (index + 2) * MINUTE)))
    const nodes = fc
      .array(fc.integer({ min: 0, max: 1000 }), { maxLength: 4 })
      .map((free) => free.map((bytes, index) => node(`n-${index}`, bytes)))
    const services = fc.array(
      fc.record({ count: fc.integer({ min: 0, max: 20 }), memoryBytes: fc.integer({ min: 20, max: 1000 }) }),
      {
        maxLength: 4,
      },
    )
    await fc.assert(
      fc.property(machines, nodes, services, (coming, there, sizes) => {
        const work = sizes.flatMap(({ count, memoryBytes }, index) =>
          requestsOf(`s/${index}`, count, { charge: { cpuMillis: 1, memoryBytes, diskBytes: 0 } }),
        )
        const gone = new Set(cancelled(plan({ machines: coming, nodes: there, wanted: work })))
        const buys = (all: readonly MachineRecord[]) =>
          planCapacity({
            refused: work,
            nodes: there,
            reclaimable: [],
            machines: all,
            pools: [{ ...POOL, max: 200 }],
            handJoined: new Map(),
            cooling: new Map(),
            providers: new Set(['p']),
            config: { maxBuysPerPass: 200, budgetUsdPerMonth: null, slowBootFactor: 0 },
            nowMs: NOW,
          }).actions.length
        expect(buys(coming.filter(({ id }) => !gone.has(id)))).toBe(buys(coming))
      }),
    )
  })
})
