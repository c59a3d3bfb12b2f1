import fc from 'fast-check'
import { expect, it } from 'vitest'
import { seededRandom } from '../../shared/random.ts'
import { createBlend } from './blend.ts'

it('leaves what all forecasts agree on as it is, whatever was learned', () => {
  const number = fc.double({ min: 0, max: 1e6, noNaN: true })
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.array(number, { minLength: 4, maxLength: 4 }), number), { maxLength: 30 }),
      number,
      (learned, agreed) => {
        const blend = createBlend(4, 0.99)
        for (const [said, value] of learned) {
          blend.learn(said, blend.of(said), value)
          blend.solve([1, 2, 3, 4])
        }
        expect(blend.of([agreed, agreed, agreed, agreed])).toBeCloseTo(agreed, 6)
      },
    ),
    // Of numbers too small to be squared there is one in some hundred runs.
    { numRuns: 1_000 },
  )
})

it('stays near the range of what is said, so that weights learned on thin data cannot run away', () => {
  const number = fc.double({ min: 0, max: 1e6, noNaN: true })
  const said3 = fc.array(number, { minLength: 3, maxLength: 3 })
  fc.assert(
    fc.property(fc.array(fc.tuple(said3, number), { maxLength: 20 }), said3, (learned, said) => {
      const blend = createBlend(3, 0.9)
      for (const [before, value] of learned) blend.learn(before, blend.of(before), value)
      blend.solve([1, 1, 1])
      const range = Math.max(...said) - Math.min(...said)
      expect(blend.of(said)).toBeGreaterThanOrEqual(Math.max(0, Math.min(...said) - range / 4) - 1e-6)
      expect(blend.of(said)).toBeLessThanOrEqual(Math.max(...said) + range / 4 + 1e-6)
    }),
  )
})

it('learns to cancel errors that two forecasts share with opposite sign, which neither does alone', () => {
  const random = seededRandom(4)
  const blend = createBlend(3, 0.999)
  const errors = { blend: 0, first: 0 }
  for (let i = 0; i < 2_000; i++) {
    const value = 100 + 50 * random.next()
    const shared = 40 * (random.next() - 0.5)
    const said = [100 + 50 * random.next(), value + shared, value - shared + 4 * (random.next() - 0.5)]
    const blended = blend.of(said)
    if (i > 1_000) {
      errors.blend += Math.abs(blended - value)
      errors.first += Math.abs((said[1] ?? 0) - value)
    }
    blend.learn(said, blended, value)
    if (i % 20 === 0) blend.solve([17, 10, 10])
  }
  expect(errors.blend).toBeLessThan(0.25 * errors.first)
})
