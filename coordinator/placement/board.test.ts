/** What a plan looks up on every node, whatever the requests name. */
import { describe, expect, it } from 'vitest'
import { aRequest } from '../../test/builders/requests.ts'
import { assumedNode } from './plan-offline.ts'
import { planPlacement } from './plan-placement.ts'

const capacity = { cpuMillis: 8_000, memoryBytes: 32 * 2 ** 30, diskBytes: 2 ** 40, slots: 200 }
const constraint = (attribute: string, value: string) => ({ attribute, operator: '==' as const, value })

describe('a board', () => {
  it('looks up no attribute on every node that none of them has, however many are made up', () => {
    let lookups = 0
    const nodes = Array.from({ length: 100 }, (_, index) => {
      const labels = new Proxy<Record<string, string>>(
        { zone: `z${index % 3}` },
        {
          getOwnPropertyDescriptor(target, key) {
            lookups += 1
            return Reflect.getOwnPropertyDescriptor(target, key)
          },
        },
      )
      return assumedNode(`n-${index}`, capacity, { labels })
    })
    const requests = Array.from({ length: 40 }, (_, service) => {
      const constraints = Array.from({ length: 100 }, (_, index) => constraint(`node.labels.k${service}-${index}`, 'v'))
      return aRequest(`evil/s${service}/1/1`, {}, { constraints })
    })
    const plan = planPlacement({ requests: [...requests, aRequest('good/web/1/1')], nodes })
    expect(plan.assignments.map(({ instance }) => instance)).toEqual(['good/web/1/1'])
    expect(plan.refusals).toHaveLength(40)
    // 400,000 before.
    expect(lookups).toBeLessThan(5_000)
  })

  it('tells nodes apart by any of many attributes that some of them have', () => {
    const nodes = Array.from({ length: 60 }, (_, index) =>
      assumedNode(`n-${index}`, capacity, {
        labels: { [`own-${index}`]: 'yes' },
        engineLabels: { disk: index === 7 ? 'ssd' : 'hdd' },
      }),
    )
    const requests = nodes.map((_, index) =>
      aRequest(`shop/s${index}/1/1`, {}, { constraints: [constraint(`node.labels.own-${index}`, 'YES')] }),
    )
    const fast = aRequest('shop/fast/1/1', {}, { constraints: [constraint('engine.labels.disk', 'ssd')] })
    const plan = planPlacement({ requests: [...requests, fast], nodes })
    const where = new Map(plan.assignments.map(({ instance, node }) => [instance, node]))
    expect(nodes.map((_, index) => where.get(`shop/s${index}/1/1`))).toEqual(nodes.map(({ id }) => id))
    expect(where.get('shop/fast/1/1')).toBe('n-7')
  })
})
