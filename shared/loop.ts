/**
 * A control loop: runs, sleeps until it asked to be woken or is poked, runs again. Never overlaps itself; pokes that arrive
 * while it runs make exactly one more run. A run that throws is logged (RetryableError as a warning) and repeated with exponential
 * backoff.
 */
import { backoffCeilingMs } from './backoff.ts'
import type { Clock, Timer } from './clock.ts'
import { ConflictError, messageOf, RetryableError } from './errors.ts'
import type { Logger } from './logger.ts'

export interface Loop {
  readonly name: string
  start(): void
  /** Asks for a run soon; cheap, may be called any number of times. */
  poke(): void
  /** Aborts the current run's signal, waits for it to end, and cancels the timer. */
  stop(): Promise<void>
}

export interface LoopOptions {
  readonly name: string
  readonly clock: Clock
  readonly logger: Logger
  /** Quiet time between a poke and the run, so that a burst of pokes makes one run. Default 0. */
  readonly debounceMs?: number
  /** Longest sleep, whatever the run asks for: the level-triggered safety net. Default 30 s. */
  readonly maxSleepMs?: number
  /** One pass. Returns the epoch ms at which to run again, or null for "when poked". */
  run(signal: AbortSignal): Promise<number | null>
}

const ERROR_BACKOFF = { baseMs: 250, capMs: 30_000 }

export function createLoop(options: LoopOptions): Loop {
  const { clock, logger, name } = options
  const maxSleepMs = options.maxSleepMs ?? 30_000
  let timer: Timer | null = null
  let dueAtMs = Number.POSITIVE_INFINITY // monotonic
  let running: Promise<void> | null = null
  let isRunning = false // from the first step of a run on, when `running` is not assigned yet
  let pokedWhileRunning = false
  let failures = 0
  let stopped = true
  let abort = new AbortController()

  const schedule = (delayMs: number) => {
    timer?.cancel()
    dueAtMs = clock.monotonicMs() + delayMs
    timer = clock.setTimer(delayMs, () => {
      timer = null
      running = pass()
    })
  }

  const pass = async () => {
    isRunning = true
    pokedWhileRunning = false
    let delayMs = maxSleepMs
    try {
      const wakeAtMs = await options.run(abort.signal)
      failures = 0
      if (wakeAtMs !== null) delayMs = Math.min(maxSleepMs, Math.max(0, wakeAtMs - clock.now()))
    } catch (error) {
      if (!stopped) {
        // A conflict with another loop, a store that is busy: expected, and mended by the next run. All else is a fault of ours.
        const level = error instanceof RetryableError || error instanceof ConflictError ? 'warn' : 'error'
        logger[level]('loop run failed, will repeat', {
          loop: name,
          error: messageOf(error),
          stack: error instanceof Error ? error.stack : undefined,
        })
        delayMs = backoffCeilingMs(failures++, ERROR_BACKOFF)
      }
    }
    running = null
    isRunning = false
    if (stopped) return
    schedule(pokedWhileRunning && failures === 0 ? (options.debounceMs ?? 0) : delayMs)
  }

  return {
    name,
    start() {
      if (!stopped) return
      stopped = false
      abort = new AbortController()
      schedule(0)
    },
    poke() {
      if (stopped) return
      if (isRunning) pokedWhileRunning = true
      // A run that is due sooner stays: a stream of pokes must not push it away for ever.
      else if (failures === 0 && dueAtMs > clock.monotonicMs() + (options.debounceMs ?? 0)) schedule(options.debounceMs ?? 0)
    },
    async stop() {
      stopped = true
      abort.abort(new Error(`loop ${name} stopped`))
      timer?.cancel()
      timer = null
      await running
    },
  }
}
