import { expect, it } from 'vitest'
import { seededRandom } from '../../shared/random.ts'
import { createErrorBook } from './errors.ts'

const memory = { stepMs: 300_000, longMs: 4 * 86_400_000, shortMs: 3_600_000 }

/** Scores `days` of a forecast that is always 100, with errors that `noise` draws for the hour; share covered in the last half. */
function coverage(days: number, noise: (hour: number, random: () => number) => number, only?: number): number {
  const random = seededRandom(7)
  const book = createErrorBook(1, memory)
  let covered = 0
  let counted = 0
  for (let i = 0; i < days * 288; i++) {
    const hour = Math.floor(i / 12) % 24
    const value = 100 + noise(hour, () => random.next())
    const upper = 100 + book.margin(0, hour)
    if (i > days * 144 && (only === undefined || only === hour)) {
      counted += 1
      if (value <= upper) covered += 1
    }
    book.score(0, hour, 100, upper, value)
  }
  return covered / counted
}

it('the p90 covers nine in ten, for even, skewed and one-sided errors', () => {
  expect(coverage(20, (_hour, random) => 40 * (random() - 0.5))).toBeCloseTo(0.9, 1)
  expect(coverage(20, (_hour, random) => -10 * Math.log(1 - random()) - 10)).toBeCloseTo(0.9, 1)
  expect(coverage(20, (_hour, random) => 30 + 5 * random())).toBeGreaterThan(0.85)
})

it('hours with large errors have a wide margin and quiet hours a narrow one', () => {
  const noise = (hour: number, random: () => number) => (hour === 12 ? 100 : 2) * (random() - 0.5)
  expect(coverage(30, noise, 12)).toBeGreaterThan(0.75)
  expect(coverage(30, noise, 3)).toBeGreaterThan(0.75)
  const book = createErrorBook(1, memory)
  const random = seededRandom(1)
  for (let i = 0; i < 20 * 288; i++) {
    const hour = Math.floor(i / 12) % 24
    book.score(0, hour, 100, 100 + book.margin(0, hour), 100 + noise(hour, () => random.next()))
  }
  expect(book.margin(0, 12)).toBeGreaterThan(5 * book.margin(0, 3))
})

it('is without margin where nothing ever erred', () => {
  const book = createErrorBook(2, memory)
  for (let i = 0; i < 500; i++) book.score(1, i % 24, 0, book.margin(1, i % 24), 0)
  expect(book.margin(1, 5)).toBe(0)
  expect(book.samples(0)).toBe(0)
})
