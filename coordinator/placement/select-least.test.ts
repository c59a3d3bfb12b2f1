import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { selectLeast } from './select-least.ts'

describe('selection of the least', () => {
  it('puts the least items of the range first, ties by item, keeps values with their items and leaves the rest alone', async () => {
    await fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 60 }),
        fc.nat(),
        fc.nat(),
        (numbers, a, b) => {
          const from = a % numbers.length
          const to = from + 1 + (b % (numbers.length - from))
          const middle = (from + to) >> 1
          const items = Int32Array.from(numbers, (_, index) => index)
          const values = Float64Array.from(numbers)
          selectLeast(items, values, from, to, middle)
          const inOrder = numbers
            .map((value, item) => ({ value, item }))
            .slice(from, to)
            .sort((x, y) => x.value - y.value || x.item - y.item)
            .map(({ item }) => item)
          expect(new Set(items.slice(from, middle))).toEqual(new Set(inOrder.slice(0, middle - from)))
          expect([...items.slice(0, from), ...items.slice(to)]).toEqual(
            numbers.map((_, item) => item).filter((item) => item < from || item >= to),
          )
          expect([...values]).toEqual([...items].map((item) => numbers[item]))
        },
      ),
    )
  })
})
