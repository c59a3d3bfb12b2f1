/**
 * Demand series that nobody recorded, for benches: one model per family of traffic, with parameters drawn from the seed, so that
 * a policy can be tried on one seed and judged on others. Every value is a mean rate over its step. Pure.
 */
import { poisson } from '../../coordinator/simulate/demand.ts'
import { type Random, seededRandom } from '../../shared/random.ts'

export interface ModelSeries {
  readonly name: string
  /** `timestamp,value` with a header, as people export it. */
  readonly csv: string
}

const MINUTE_S = 60
const HOUR_S = 3_600
const DAY_S = 86_400
/** A Monday. */
const START_S = Date.UTC(2025, 2, 17) / 1000

interface Draw {
  readonly random: Random
  between(low: number, high: number): number
  /** As likely between 1 and 10 as between 10 and 100. */
  logBetween(low: number, high: number): number
  normal(): number
  exponential(mean: number): number
  /** A noise that forgets within about `memoryS`: mean 0, the given deviation. */
  wander(stepS: number, memoryS: number, deviation: number): () => number
}

interface Family {
  readonly name: string
  readonly stepS: number
  readonly days: number
  /** The value at each step; null: missing. Called in order, `s` seconds after the start. */
  model(draw: Draw, stepS: number, days: number): (s: number) => number | null
}

const hourOf = (s: number) => (s % DAY_S) / HOUR_S
const weekdayOf = (s: number) => Math.floor(s / DAY_S) % 7

/** A day of one broad hump and a second one, between 0 and 1. */
function dayShape(draw: Draw): (hour: number) => number {
  const peak = draw.between(9, 20)
  const second = draw.between(0, 0.5)
  const secondPeak = peak + draw.between(4, 10)
  const width = draw.between(0.8, 3)
  const hump = (hour: number, at: number) => Math.exp(width * (Math.cos((2 * Math.PI * (hour - at)) / 24) - 1))
  return (hour) => (hump(hour, peak) + second * hump(hour, secondPeak)) / (1 + second)
}

/** Moments at which something happens, on average every `meanS`. */
function moments(draw: Draw, days: number, meanS: number): readonly number[] {
  const all: number[] = []
  for (let s = draw.exponential(meanS); s < days * DAY_S; s += draw.exponential(meanS)) all.push(s)
  return all
}

/** Bursts that rise within `riseS` and halve every `halfS`; sizes have a heavy tail. */
function bursts(draw: Draw, days: number, everyS: number, riseS: number, halfS: number): (s: number) => number {
  const all = moments(draw, days, everyS).map((atS) => ({
    atS,
    size: draw.random.next() ** -0.6 - 0.5,
    halfS: draw.exponential(halfS) + riseS,
  }))
  return (s) => {
    let sum = 0
    for (const { atS, size, halfS: half } of all) {
      const age = s - atS
      if (age < 0 || age > 12 * half) continue
      sum += size * (age < riseS ? age / riseS : 0.5 ** ((age - riseS) / half))
    }
    return sum
  }
}

function daily(draw: Draw, stepS: number, options: { floor: number; noise: number; weekend: number }): (s: number) => number {
  const shape = dayShape(draw)
  const noise = draw.wander(stepS, 2 * HOUR_S, options.noise)
  return (s) => {
    const weekend = weekdayOf(s) >= 5 ? options.weekend : 1
    return Math.max(0, (options.floor + (1 - options.floor) * shape(hourOf(s))) * weekend * (1 + noise()))
  }
}

const FAMILIES: readonly Family[] = [
  {
    name: 'day-and-week',
    stepS: 5 * MINUTE_S,
    days: 21,
    model(draw, stepS) {
      const usual = daily(draw, stepS, {
        floor: draw.between(0.05, 0.3),
        noise: draw.between(0.03, 0.12),
        weekend: draw.between(0.3, 0.8),
      })
      return (s) => 1000 * usual(s)
    },
  },
  {
    name: 'office-hours',
    stepS: 5 * MINUTE_S,
    days: 21,
    model(draw) {
      const from = draw.between(6, 9)
      const to = from + draw.between(8, 11)
      const noise = draw.between(0.05, 0.15)
      return (s) => {
        const open = weekdayOf(s) < 5 && hourOf(s) >= from && hourOf(s) < to
        const lunch = Math.abs(hourOf(s) - 12.5) < 0.5 ? 0.7 : 1
        return (open ? 40 * lunch : 0.6) * Math.max(0, 1 + noise * draw.normal())
      }
    },
  },
  {
    name: 'weekends-only',
    stepS: 15 * MINUTE_S,
    days: 28,
    model(draw, stepS) {
      const usual = daily(draw, stepS, { floor: 0.1, noise: 0.1, weekend: 1 })
      return (s) => (weekdayOf(s) >= 5 ? 300 * usual(s) : 12 * usual(s))
    },
  },
  {
    name: 'random-walk',
    stepS: 5 * MINUTE_S,
    days: 14,
    model(draw, stepS) {
      const slow = draw.wander(stepS, draw.logBetween(4, 48) * HOUR_S, draw.between(0.4, 0.9))
      const quick = draw.wander(stepS, draw.logBetween(5, 40) * MINUTE_S, draw.between(0.05, 0.2))
      return () => 500 * Math.exp(slow() + quick())
    },
  },
  {
    name: 'bursts',
    stepS: 5 * MINUTE_S,
    days: 14,
    model(draw, stepS, days) {
      const burst = bursts(
        draw,
        days,
        draw.logBetween(1, 8) * HOUR_S,
        draw.logBetween(2, 30) * MINUTE_S,
        draw.logBetween(10, 90) * MINUTE_S,
      )
      const noise = draw.wander(stepS, HOUR_S, 0.15)
      return (s) => 20 * Math.max(0, 1 + noise()) * (1 + burst(s))
    },
  },
  {
    name: 'day-with-flash-crowds',
    stepS: MINUTE_S,
    days: 10,
    model(draw, stepS, days) {
      const usual = daily(draw, stepS, { floor: 0.2, noise: 0.08, weekend: 1 })
      const burst = bursts(
        draw,
        days,
        draw.logBetween(8, 40) * HOUR_S,
        draw.logBetween(1, 10) * MINUTE_S,
        draw.logBetween(5, 40) * MINUTE_S,
      )
      return (s) => 800 * (usual(s) + 0.4 * burst(s))
    },
  },
  {
    name: 'level-shifts',
    stepS: 5 * MINUTE_S,
    days: 21,
    model(draw, stepS, days) {
      const usual = daily(draw, stepS, { floor: draw.between(0.2, 0.6), noise: 0.06, weekend: draw.between(0.6, 1) })
      const shifts = moments(draw, days, draw.between(2, 5) * DAY_S).map((atS) => ({
        atS,
        factor: Math.exp(draw.between(-0.8, 0.8)),
      }))
      return (s) =>
        shifts.reduce((value, { atS, factor }) => (s >= atS ? Math.min(5, Math.max(0.2, value * factor)) : value), 1) *
        900 *
        usual(s)
    },
  },
  {
    name: 'on-and-off',
    stepS: MINUTE_S,
    days: 10,
    model(draw, _stepS, days) {
      const runs = moments(draw, days, draw.logBetween(2, 9) * HOUR_S).map((atS) => ({
        fromS: atS,
        toS: atS + draw.exponential(draw.logBetween(10, 90) * MINUTE_S),
        rate: draw.between(40, 200),
      }))
      return (s) => runs.reduce((sum, run) => (s >= run.fromS && s < run.toS ? sum + run.rate : sum), 0)
    },
  },
  {
    name: 'hourly-jobs',
    stepS: MINUTE_S,
    days: 10,
    model(draw) {
      const every = draw.random.next() < 0.5 ? HOUR_S : 6 * HOUR_S
      const lasts = draw.between(4, 15) * MINUTE_S
      const low = draw.between(20, 60)
      const high = draw.between(100, 300)
      return (s) => (low + (s % every < lasts ? high : 0)) * Math.max(0, 1 + 0.08 * draw.normal())
    },
  },
  {
    name: 'start-up-growth',
    stepS: 15 * MINUTE_S,
    days: 28,
    model(draw, stepS) {
      const usual = daily(draw, stepS, { floor: 0.15, noise: 0.1, weekend: draw.between(0.5, 1.2) })
      const perDay = draw.between(0.04, 0.1)
      return (s) => 30 * Math.exp((perDay * s) / DAY_S) * usual(s)
    },
  },
  {
    name: 'cycle-of-days',
    stepS: 30 * MINUTE_S,
    days: 42,
    model(draw, stepS) {
      const periodS = draw.between(2.5, 5.5) * DAY_S
      const noise = draw.wander(stepS, 3 * HOUR_S, 0.1)
      return (s) => 5_000_000 * Math.max(0, 1.2 + Math.sin((2 * Math.PI * s) / periodS)) * Math.max(0, 1 + noise())
    },
  },
  {
    name: 'with-gaps',
    stepS: 5 * MINUTE_S,
    days: 21,
    model(draw, stepS, days) {
      const usual = daily(draw, stepS, { floor: 0.2, noise: 0.08, weekend: 0.7 })
      const gaps = moments(draw, days, 1.5 * DAY_S).map((atS) => ({ fromS: atS, toS: atS + draw.exponential(40 * MINUTE_S) }))
      return (s) => {
        const value = 250 * usual(s)
        return gaps.some(({ fromS, toS }) => s >= fromS && s < toS) ? null : value
      }
    },
  },
  {
    name: 'by-the-hour',
    stepS: HOUR_S,
    days: 56,
    model(draw, stepS) {
      const usual = daily(draw, stepS, {
        floor: draw.between(0.1, 0.4),
        noise: draw.between(0.04, 0.12),
        weekend: draw.between(0.4, 1),
      })
      return (s) => 0.004 * usual(s)
    },
  },
  {
    name: 'small-counts',
    stepS: 5 * MINUTE_S,
    days: 14,
    model(draw, stepS) {
      const usual = daily(draw, stepS, { floor: 0.1, noise: 0.05, weekend: 0.8 })
      const most = draw.between(3, 12)
      return (s) => poisson(most * usual(s), draw.random)
    },
  },
  {
    name: 'clock-change',
    stepS: 15 * MINUTE_S,
    days: 21,
    model(draw, stepS) {
      // Summer time begins on the thirteenth day, a Sunday, at 01:00 UTC: days by the local clock move an hour ahead.
      const usual = daily(draw, stepS, { floor: 0.1, noise: 0.05, weekend: 0.6 })
      return (s) => 700 * usual(s + (s < 13 * DAY_S + HOUR_S ? HOUR_S : 2 * HOUR_S))
    },
  },
  {
    name: 'two-days',
    stepS: 5 * MINUTE_S,
    days: 2,
    model(draw, stepS) {
      const usual = daily(draw, stepS, { floor: 0.15, noise: 0.1, weekend: 1 })
      return (s) => 120 * usual(s)
    },
  },
  {
    name: 'part-of-a-day',
    stepS: MINUTE_S,
    days: 0.75,
    model(draw, stepS, days) {
      const usual = daily(draw, stepS, { floor: 0.3, noise: 0.1, weekend: 1 })
      const burst = bursts(draw, days, 3 * HOUR_S, 3 * MINUTE_S, 15 * MINUTE_S)
      return (s) => 60 * (usual(s) + 0.3 * burst(s))
    },
  },
  {
    name: 'noise-alone',
    stepS: 5 * MINUTE_S,
    days: 10,
    model(draw) {
      const spread = draw.between(0.1, 0.4)
      return () => 70 * Math.exp(spread * draw.normal())
    },
  },
]

/** One series of each family. Same seed, same series. */
export function modelSeries(seed: number): readonly ModelSeries[] {
  return FAMILIES.map(({ name, stepS, days, model }, index) => {
    const draw = drawFrom(seededRandom(1_000 * seed + index))
    const at = model(draw, stepS, days)
    const rows = ['timestamp,value']
    for (let s = 0; s < days * DAY_S; s += stepS) {
      const value = at(s)
      rows.push(
        `${new Date(1000 * (START_S + s)).toISOString().slice(0, 19)},${value === null ? '' : Number(value.toPrecision(7))}`,
      )
    }
    return { name: `${name}-${seed}.csv`, csv: `${rows.join('\n')}\n` }
  })
}

function drawFrom(random: Random): Draw {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next())
  return {
    random,
    normal,
    between: (low, high) => low + (high - low) * random.next(),
    logBetween: (low, high) => low * (high / low) ** random.next(),
    exponential: (mean) => -Math.log(1 - random.next()) * mean,
    wander(stepS, memoryS, deviation) {
      const keep = Math.exp(-stepS / memoryS)
      let value = deviation * normal()
      return () => {
        value = keep * value + Math.sqrt(1 - keep * keep) * deviation * normal()
        return value
      }
    },
  }
}
