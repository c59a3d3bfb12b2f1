import { expect, it } from 'vitest'
import { horizonOf, leadOfOrder } from './horizon.ts'

it('an order takes the start and, where one is needed, the machine; what is not known yet counts as nothing', () => {
  expect(leadOfOrder({ startMs: 10_000, machineMs: 240_000 })).toBe(250_000)
  expect(leadOfOrder({ startMs: 10_000, machineMs: null })).toBe(10_000)
  expect(leadOfOrder({ startMs: null, machineMs: 240_000 })).toBe(240_000)
  expect(leadOfOrder({ startMs: null, machineMs: null })).toBeNull()
})

it('a forecast covers the minute until demand is next known as well', () => {
  expect(horizonOf(250_000)).toBe(310_000)
})
