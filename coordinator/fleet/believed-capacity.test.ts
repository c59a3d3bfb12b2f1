import { describe, expect, it } from 'vitest'
import { aCapacity, aMachineRecord, aPool } from '../../test/builders/records.ts'
import { believedCapacity, promisedCapacity } from './believed-capacity.ts'

const GiB = 2 ** 30
const PROMISED = aCapacity({ cpuMillis: 4_000, memoryBytes: 16 * GiB })
const told = (fields: Partial<typeof PROMISED>) => believedCapacity({ ...PROMISED, ...fields }, PROMISED)

describe('what is believed of what a node says that it has', () => {
  it('less is always believed, and a little more; much more counts for what was ordered', () => {
    expect(told({ memoryBytes: 15 * GiB })).toMatchObject({ capacity: { memoryBytes: 15 * GiB }, difference: null })
    expect(told({ memoryBytes: 17 * GiB })).toMatchObject({ capacity: { memoryBytes: 17 * GiB }, difference: null })
    expect(told({ memoryBytes: 8 * GiB })).toEqual({
      capacity: { ...PROMISED, memoryBytes: 8 * GiB },
      difference: 'says that it has 8.00 GiB instead of 16.00 GiB',
    })
    expect(told({ cpuMillis: 1e9 })).toEqual({
      capacity: PROMISED,
      difference: 'says that it has 1000000 CPUs instead of 4 CPUs, of which it counts for the latter',
    })
  })

  it('what nobody ordered is believed, and so is what the order does not say', () => {
    const huge = aCapacity({ cpuMillis: 1e6, memoryBytes: 2 ** 42 })
    expect(believedCapacity(huge, null)).toEqual({ capacity: huge, difference: null })
    expect(believedCapacity(huge, aCapacity({ cpuMillis: 0, memoryBytes: 0 }))).toEqual({ capacity: huge, difference: null })
    expect(promisedCapacity(undefined, aPool())).toBeNull()
    expect(promisedCapacity(aMachineRecord(), aPool({ static: true }))).toBeNull()
  })

  it('disk counts up to ten times what was ordered, slots up to 600 or what was ordered: one that claims all there is draws no more', () => {
    expect(told({ diskBytes: 10 * PROMISED.diskBytes, slots: 600 })).toMatchObject({ difference: null })
    expect(told({ diskBytes: 1e18, slots: 1e9 })).toEqual({
      capacity: { ...PROMISED, diskBytes: 10 * PROMISED.diskBytes, slots: 600 },
      difference:
        'says that it has 931322574.62 GiB of disk, of which 1000.00 GiB of disk count and 1000000000 slots, of which 600 slots count',
    })
    expect(told({ diskBytes: 1, slots: 1 })).toMatchObject({ capacity: { diskBytes: 1, slots: 1 }, difference: null })
    const dense = { ...PROMISED, slots: 2_000 }
    expect(believedCapacity({ ...dense, slots: 1e9 }, dense).capacity.slots).toBe(2_000)
    expect(believedCapacity({ ...PROMISED, slots: 1e9 }, null).capacity.slots).toBe(10_000)
  })

  it('a pool whose size was corrected counts for the machines ordered before', () => {
    const machine = aMachineRecord({ capacity: aCapacity({ cpuMillis: 2_000 }) })
    expect(promisedCapacity(machine, aPool({ capacity: aCapacity({ cpuMillis: 4_000 }) }))?.cpuMillis).toBe(4_000)
    expect(promisedCapacity(machine, undefined)?.cpuMillis).toBe(2_000)
  })
})
