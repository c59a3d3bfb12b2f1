import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { aRequest } from '../../test/builders/requests.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import { spareRoom } from './spare-room.ts'

const CAPACITY = { cpuMillis: 1000, memoryBytes: 1000, diskBytes: 0, slots: 10 }

describe('spare room', () => {
  it('never refuses what placement would place', () => {
    const amount = fc.integer({ min: -200, max: 1000 })
    const nodes = fc.array(
      fc.record({ cpuMillis: amount, memoryBytes: amount, slots: fc.integer({ min: 0, max: 3 }), open: fc.boolean() }),
      { minLength: 1, maxLength: 8 },
    )
    const size = fc.integer({ min: 0, max: 700 })
    const requests = fc.array(fc.record({ cpuMillis: size, memoryBytes: size }), { maxLength: 5 })
    fc.assert(
      fc.property(nodes, requests, (rooms, charges) => {
        const all = rooms.map(({ open, ...free }, index) =>
          assumedNode(`n-${index}`, CAPACITY, { free: { ...free, diskBytes: 0 }, closed: open ? null : 'cordoned' }),
        )
        const moving = charges.map((charge, index) => aRequest(`s/a${index}/1/1`, { charge: { ...charge, diskBytes: 0 } }))
        const plan = planPlacement({ requests: moving, nodes: all.slice(1) })
        const refusal = spareRoom(all).refusal(moving, 'n-0')
        if (plan.refusals.length === 0) expect(refusal).toBeNull()
      }),
    )
  })

  it('names the one that is too large for every other node, and tells when all together are too much', () => {
    const free = (memoryBytes: number) => ({ cpuMillis: 1000, memoryBytes, diskBytes: 0, slots: 5 })
    const room = spareRoom([
      assumedNode('a', CAPACITY, { free: free(900) }),
      assumedNode('b', CAPACITY, { free: free(300) }),
      assumedNode('c', CAPACITY, { free: free(300) }),
    ])
    const of = (id: string, memoryBytes: number) => aRequest(id, { charge: { cpuMillis: 10, memoryBytes, diskBytes: 0 } })
    expect(room.refusal([of('s/a/1/1', 400)], 'a')).toBe('s/a/1/1 would fit on no other node')
    expect(room.refusal([of('s/a/1/1', 400)], 'b')).toBeNull()
    expect(room.refusal([of('s/a/1/1', 300), of('s/a/2/1', 301)], 'b')).toBeNull()
    expect(room.refusal([of('s/a/1/1', 250), of('s/a/2/1', 250), of('s/a/3/1', 250)], 'a')).toMatch(/more than is free/)
  })
})
