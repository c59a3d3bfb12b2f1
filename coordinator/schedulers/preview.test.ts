/** Dry runs of any size: bounded work, and what was not looked at is said. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { anAppSpec, aPlacement, aServiceSpec } from '../../test/builders/specs.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { previewPlacement, sharesOf } from './preview.ts'

const capacity = { cpuMillis: 4_000, memoryBytes: 16 * 2 ** 30, diskBytes: 2 ** 40, slots: 100 }
const nodesOf = (count: number) => Array.from({ length: count }, (_, index) => assumedNode(`n-${index}`, capacity, {}))
const nobody = { preview: () => Promise.reject(new Error('nobody is to be asked')) }
const service = (name: string, replicas: number, scheduler?: string) =>
  aServiceSpec({ name, replicas, placement: aPlacement(scheduler === undefined ? {} : { scheduler }) })

describe('the preview of a dry run', () => {
  it('places all of an app that fits', async () => {
    const app = anAppSpec({ services: [service('a', 30), service('b', 20)] })
    const { plan, left } = await previewPlacement(app, nodesOf(2), nobody)
    expect([plan.assignments.length, plan.refusals.length, left]).toEqual([50, 0, []])
  })

  it('looks at no more of a service than shows that the nodes are full', async () => {
    const { plan, left } = await previewPlacement(anAppSpec({ services: [service('a', 100_000)] }), nodesOf(2), nobody)
    expect(plan.assignments.length + plan.refusals.length).toBe(201)
    expect(left).toEqual([{ service: 'shop/a', count: 99_799 }])
  })

  it('looks at 2,000 instances of an app at most, whatever it asks for, and at some of each service', async () => {
    const services = Array.from({ length: 500 }, (_, index) => service(`s${index}`, 100_000))
    const { plan, left } = await previewPlacement(anAppSpec({ services }), nodesOf(20), nobody)
    expect(plan.assignments.length + plan.refusals.length).toBe(2_000)
    expect(new Set([...plan.assignments, ...plan.refusals].map(({ instance }) => instance.split('/')[1])).size).toBe(500)
    expect(left).toHaveLength(500)
  })

  it('asks the schedulers of 20 services, one after the other, about groups of any size', async () => {
    let underWay = 0
    const sizes: number[] = []
    const desk = {
      async preview(group: readonly unknown[]) {
        underWay += 1
        sizes.push(group.length)
        expect(underWay).toBe(1)
        await Promise.resolve()
        underWay -= 1
        return { kind: 'undecided' as const, why: 'no' }
      },
    }
    const services = Array.from({ length: 25 }, (_, index) => service(`s${index}`, 30_000, 'coolest'))
    const { why } = await previewPlacement(anAppSpec({ services }), nodesOf(20), desk)
    expect(sizes).toEqual(Array(20).fill(80))
    expect([...why.values()].filter((text) => text === 'a dry run asks about 20 services at most')).toHaveLength(5)
  })

  it('shares its bound so that no service is left out for a larger one', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(200), { maxLength: 30 }), fc.nat(500), (counts, total) => {
        const shares = sharesOf(counts, total)
        const sum = shares.reduce((all, share) => all + share, 0)
        expect(sum).toBeLessThanOrEqual(total)
        expect(shares.every((share, index) => share >= 0 && share <= (counts[index] ?? 0))).toBe(true)
        const cut = shares.filter((share, index) => share < (counts[index] ?? 0))
        // Who got less than it wanted got no less than anybody, but for what does not divide.
        if (cut.length > 0) expect(Math.max(...shares) - Math.min(...cut)).toBeLessThanOrEqual(1)
        else expect(sum).toBe(counts.reduce((all, count) => all + count, 0))
      }),
    )
  })
})
