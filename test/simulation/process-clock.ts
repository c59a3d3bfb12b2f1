/** The clock of one machine: it may run at another rate than the world, and its wall time may jump (fault rows 37, 38). */
import type { Clock } from '../../shared/clock.ts'

export interface MachineClock extends Clock {
  /** Moves its wall time alone. */
  jumpWall(ms: number): void
  readonly rate: number
}

/** `rate` is how many of its milliseconds pass in one of the world's. */
export function machineClock(world: Clock, rate = 1): MachineClock {
  let offsetMs = 0
  const sinceMs = world.monotonicMs()
  const passedMs = () => (world.monotonicMs() - sinceMs) * rate
  return {
    rate,
    now: () => Math.floor(world.now() + offsetMs + passedMs() * (1 - 1 / rate)),
    monotonicMs: () => sinceMs + passedMs(),
    setTimer: (delayMs, fn) => world.setTimer(delayMs / rate, fn),
    jumpWall(ms) {
      offsetMs += ms
    },
  }
}
