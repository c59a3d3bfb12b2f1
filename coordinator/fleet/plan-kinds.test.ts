import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aCapacity, aMachineRecord, aPool } from '../../test/builders/records.ts'
import type { PlacementNode } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { kindsOf } from './plan-kinds.ts'

const POOL = aPool({ capacity: aCapacity({ cpuMillis: 4_000, memoryBytes: 16 * 2 ** 30 }) })
const NOTHING = { cpuMillis: 0.001, memoryBytes: 1, diskBytes: 0, slots: 0 }
const node = (id: string, fields: Partial<PlacementNode> = {}) =>
  assumedNode(id, fields.capacity ?? POOL.capacity, { pool: POOL.name, ...fields })
const kindOf = (nodes: readonly PlacementNode[], pool = POOL, machines: Parameters<typeof kindsOf>[2] = []) => {
  const kind = kindsOf([pool], nodes, machines).get(pool.name)
  if (kind === undefined) throw new Error('no kind')
  return kind.node
}

describe('what a new machine of a pool will be', () => {
  it('is what the pool says while none has joined, and what most of those that joined turned out to be', () => {
    expect(kindOf([]).capacity).toEqual(POOL.capacity)
    const small = { ...POOL.capacity, memoryBytes: 12 * 2 ** 30 }
    const joined = ['a', 'b', 'c'].map((id) =>
      node(id, { capacity: small, platform: 'linux/arm64', engineLabels: { storage: 'zfs', of: id } }),
    )
    expect(kindOf(joined)).toMatchObject({ capacity: small, platform: 'linux/arm64', engineLabels: { storage: 'zfs' } })
  })

  it('a machine that was ordered smaller says nothing against a pool that has grown since', () => {
    const grown = aPool({ capacity: aCapacity({ cpuMillis: 8_000, memoryBytes: 32 * 2 ** 30 }) })
    const ids = ['a', 'b', 'c']
    const machines = ids.map((id) => aMachineRecord({ id: `m-${id}`, nodeId: id, capacity: POOL.capacity }))
    const joined = ids.map((id) => node(id))
    expect(kindOf(joined, grown, machines).capacity).toEqual(grown.capacity)
  })

  it('a pool whose size was corrected to what its machines are is taken at its word', () => {
    const corrected = aPool({ capacity: { ...POOL.capacity, memoryBytes: 15 * 2 ** 30 } })
    const ids = ['a', 'b', 'c']
    const machines = ids.map((id) => aMachineRecord({ id: `m-${id}`, nodeId: id, capacity: POOL.capacity }))
    const joined = ids.map((id) => node(id, { capacity: corrected.capacity }))
    expect(kindOf(joined, corrected, machines).capacity).toEqual(corrected.capacity)
  })

  it('safety: whatever one node says of itself, a pool with two honest ones is what it was, and a pool of its own is bought from', async () => {
    const claim = fc.record({
      capacity: fc.record({
        cpuMillis: fc.double({ min: 0, max: 1e12, noNaN: true }),
        memoryBytes: fc.double({ min: 0, max: 2 ** 53, noNaN: true }),
        diskBytes: fc.constant(0),
        slots: fc.nat(1e9),
      }),
      runtimes: fc.constantFrom<PlacementNode['runtimes']>([], ['process'], ['docker']),
      platform: fc.constantFrom('', 'linux/arm64', 'plan9/mips'),
      engineLabels: fc.dictionary(fc.string(), fc.string()),
    })
    await fc.assert(
      fc.property(claim, fc.constantFrom('a', 'm', 'z'), (lie, id) => {
        const honest = [node('b'), node('y')]
        expect(kindOf([...honest, node(id, lie)].sort((x, y) => (x.id < y.id ? -1 : 1)))).toEqual(kindOf(honest))
        const alone = kindOf([node(id, { ...lie, platform: 'linux/amd64' })]).capacity
        expect(alone.cpuMillis).toBeGreaterThanOrEqual(0.8 * POOL.capacity.cpuMillis)
        expect(alone.memoryBytes).toBeGreaterThanOrEqual(0.8 * POOL.capacity.memoryBytes)
      }),
    )
    expect(kindOf([node('a', { capacity: NOTHING, runtimes: [] })]).runtimes).toEqual(kindOf([]).runtimes)
  })
})
