import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Candidate, chooseEndpoint } from './balance.ts'
import { planVirtualAddresses } from './plan-virtual-addresses.ts'

const input = { random: [0.1, 0.9] as const, turn: 0, hashKey: '10.0.0.1' }

describe('chooseEndpoint', () => {
  it('least-load takes the lighter of two, counting its own requests between reports', () => {
    const candidates: Candidate[] = [
      { instance: 'a', loadPercent: 90, inFlight: 0 },
      { instance: 'b', loadPercent: 10, inFlight: 0 },
    ]
    expect(chooseEndpoint('least-load', candidates, input)).toBe(1)
    expect(
      chooseEndpoint('least-load', [candidates[0] as Candidate, { instance: 'b', loadPercent: 10, inFlight: 20 }], input),
    ).toBe(0)
  })

  it('hash moves only the callers of an endpoint that goes', () => {
    const all: Candidate[] = ['a', 'b', 'c', 'd'].map((instance) => ({ instance, loadPercent: null, inFlight: 0 }))
    const pick = (list: Candidate[], hashKey: string) => list[chooseEndpoint('hash', list, { ...input, hashKey })]?.instance
    for (let caller = 0; caller < 100; caller += 1) {
      const before = pick(all, `c${caller}`)
      if (before !== 'b')
        expect(
          pick(
            all.filter(({ instance }) => instance !== 'b'),
            `c${caller}`,
          ),
        ).toBe(before)
    }
  })

  it('always answers an index of the list, −1 only for an empty one', () => {
    const candidate = fc.record({
      instance: fc.string(),
      loadPercent: fc.option(fc.double({ min: 0, max: 100, noNaN: true })),
      inFlight: fc.nat(100),
    })
    const unit = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    const strategy = fc.constantFrom('least-load', 'least-conn', 'round-robin', 'hash' as const)
    fc.assert(
      fc.property(fc.array(candidate, { maxLength: 8 }), strategy, unit, unit, fc.nat(), (list, kind, a, b, turn) => {
        const index = chooseEndpoint(kind as 'hash', list, { random: [a, b], turn, hashKey: 'x' })
        expect(index).toBeGreaterThanOrEqual(list.length === 0 ? -1 : 0)
        expect(index).toBeLessThan(Math.max(1, list.length))
      }),
    )
  })
})

describe('planVirtualAddresses', () => {
  it('gives every service an address of its own within the slice, the same each time, and keeps held ones', () => {
    const service = fc.record({ app: fc.constantFrom('a', 'b', 'c', 'd', 'e'), ordinal: fc.integer({ min: 1, max: 30 }) })
    fc.assert(
      fc.property(fc.uniqueArray(service, { selector: ({ app, ordinal }) => `${app}${ordinal}`, maxLength: 40 }), (list) => {
        const services = list.map(({ app, ordinal }) => ({ service: `${app}/s${ordinal}`, ordinal }))
        const addresses = planVirtualAddresses(services, '127.96.4.0/22')
        expect(new Set(addresses.values()).size).toBe(services.length)
        for (const address of addresses.values()) expect(address).toMatch(/^127\.96\.[4-7]\.\d+$/)
        expect(planVirtualAddresses([...services].reverse(), '127.96.4.0/22')).toEqual(addresses)
        const more = planVirtualAddresses([...services, { service: '0/new', ordinal: 1 }], '127.96.4.0/22', addresses)
        for (const [name, address] of addresses) expect(more.get(name)).toBe(address)
      }),
    )
  })
})
