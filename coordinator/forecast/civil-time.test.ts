import { expect, it } from 'vitest'
import { createCivilTime } from './civil-time.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR

it('counts the week from Monday 00:00 of the local clock', () => {
  expect(createCivilTime('UTC').msOfWeek(Date.UTC(2025, 0, 6))).toBe(0)
  expect(createCivilTime('Europe/Berlin').msOfWeek(Date.UTC(2025, 0, 6))).toBe(HOUR)
  expect(createCivilTime('Asia/Kolkata').msOfWeek(Date.UTC(2025, 0, 5, 18, 30))).toBe(0)
  expect(createCivilTime('America/New_York').msOfWeek(Date.UTC(2025, 0, 6))).toBe(6 * DAY + 19 * HOUR)
  expect(createCivilTime('UTC').msOfWeek(Date.UTC(1969, 11, 29))).toBe(0)
})

it('keeps the hour of the local clock on both sides of its changes, and repeats or skips the hour between', () => {
  const berlin = createCivilTime('Europe/Berlin')
  const hour = (atMs: number) => Math.floor((berlin.msOfWeek(atMs) % DAY) / HOUR)
  expect(hour(Date.UTC(2025, 2, 29, 7))).toBe(8)
  expect(hour(Date.UTC(2025, 2, 31, 6))).toBe(8)
  const spring = [0, 1, 2, 3].map((h) => hour(Date.UTC(2025, 2, 30, h)))
  expect(spring).toEqual([1, 3, 4, 5])
  const autumn = [0, 1, 2].map((h) => hour(Date.UTC(2025, 9, 26, h)))
  expect(autumn).toEqual([2, 2, 3])
})

it('refuses a zone that does not exist', () => {
  expect(() => createCivilTime('Europe/Nowhere')).toThrow(RangeError)
})
