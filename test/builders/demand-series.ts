/** Generated demand: known shapes with seeded noise, for forecasts and scaling. Nothing in them is taken from a recorded trace. */
import { seededRandom } from '../../shared/random.ts'

export interface DemandSeries {
  readonly name: string
  readonly stepMs: number
  readonly timeZone: string
  readonly points: readonly { readonly atMs: number; readonly value: number | null }[]
}

export interface DemandShape {
  readonly name: string
  readonly days: number
  readonly stepMs?: number
  readonly seed?: number
  readonly timeZone?: string
  /** Expected value at `t` days since Monday 00:00, and whether it is missing. */
  mean(t: number): number
  /** Standard deviation of the noise relative to the mean. Default 0.1. */
  readonly noise?: number
  /** Share of the last step's noise that stays: 0 is white noise. Default 0.5. */
  readonly memory?: number
  /** Chance of a burst to begin in a day, its factor and length in days. */
  readonly bursts?: { readonly perDay: number; readonly factor: number; readonly days: number }
  /** Chance that a step is missing. */
  readonly missing?: number
}

/** Monday 6 January 2025, 00:00 UTC. */
export const MONDAY_MS = Date.UTC(2025, 0, 6)
const DAY_MS = 86_400_000

export function aDemandSeries(shape: DemandShape): DemandSeries {
  const stepMs = shape.stepMs ?? 300_000
  const random = seededRandom(shape.seed ?? 1)
  const normal = () => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
  const memory = shape.memory ?? 0.5
  const points: { atMs: number; value: number | null }[] = []
  let deviation = 0
  let burstUntil = -1
  for (let i = 0; i < (shape.days * DAY_MS) / stepMs; i++) {
    const t = (i * stepMs) / DAY_MS
    deviation = memory * deviation + Math.sqrt(1 - memory * memory) * normal()
    if (shape.bursts && t > burstUntil && random.next() < (shape.bursts.perDay * stepMs) / DAY_MS)
      burstUntil = t + shape.bursts.days
    const factor = shape.bursts && t < burstUntil ? shape.bursts.factor : 1
    const value = Math.max(0, shape.mean(t) * factor * (1 + (shape.noise ?? 0.1) * deviation))
    const isMissing = random.next() < (shape.missing ?? 0)
    points.push({ atMs: MONDAY_MS + i * stepMs, value: isMissing ? null : value })
  }
  return { name: shape.name, stepMs, timeZone: shape.timeZone ?? 'UTC', points }
}

/** A working day's hump: 0 at night, 1 at 14:00. */
export const hump = (t: number): number => Math.max(0, Math.cos(2 * Math.PI * ((t % 1) - 14 / 24))) ** 1.5
const isWeekend = (t: number) => Math.floor(t) % 7 >= 5

/** One of each shape that demand takes; three to six weeks each. */
export function generatedSeries(stepMs = 300_000): readonly DemandSeries[] {
  const shapes: readonly DemandShape[] = [
    { name: 'daily', days: 21, mean: (t) => 100 + 300 * hump(t) },
    { name: 'weekly', days: 35, mean: (t) => 80 + (isWeekend(t) ? 60 : 300) * hump(t) },
    { name: 'noisy daily', days: 28, noise: 0.4, memory: 0.2, mean: (t) => 60 + 120 * hump(t) },
    { name: 'trend', days: 28, mean: (t) => (60 + 200 * hump(t)) * (1 + t / 14) },
    {
      name: 'level wanders',
      days: 28,
      mean: (t) => (80 + 240 * hump(t)) * (1 + 0.4 * Math.sin(t * 2.3) + 0.2 * Math.sin(t * 0.77)),
    },
    { name: 'bursts on a day', days: 28, bursts: { perDay: 1.5, factor: 3, days: 0.03 }, mean: (t) => 100 + 200 * hump(t) },
    { name: 'bursts alone', days: 21, noise: 0.15, bursts: { perDay: 4, factor: 4, days: 0.05 }, mean: () => 100 },
    { name: 'regime change', days: 28, mean: (t) => (t < 21 ? 100 + 300 * hump(t) : 350 + 100 * hump(t + 0.4)) },
    {
      name: 'closed nights',
      days: 35,
      noise: 0.2,
      mean: (t) => (isWeekend(t) || t % 1 < 7 / 24 || t % 1 > 21 / 24 ? 0 : 120 + 60 * hump(t)),
    },
    { name: 'job each hour', days: 21, mean: (t) => 50 + ((t * 24) % 1 < 0.17 ? 200 : 0) },
    { name: 'noise', days: 21, noise: 0.4, memory: 0, mean: () => 100 },
    { name: 'slow noise', days: 21, noise: 0.4, memory: 0.98, mean: () => 100 },
    { name: 'few requests', days: 28, noise: 1, memory: 0, mean: (t) => 1 + 3 * hump(t) },
    { name: 'gaps', days: 28, missing: 0.15, mean: (t) => 100 + 300 * hump(t) },
  ]
  return shapes.map((shape, i) => aDemandSeries({ ...shape, stepMs, seed: i + 1 }))
}
