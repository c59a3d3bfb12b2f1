/**
 * Time as a dependency. Nothing but `main.ts` constructs the real clock, so that a whole cluster runs under virtual time in
 * tests. Wall time (`now`) may jump; leases, windows and timers use `monotonicMs`, which never goes back (fault row 37).
 */

/** A timer that its owner must cancel when it stops; cancelling twice is harmless. */
export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Wall-clock time in epoch ms. May jump in either direction. */
  now(): number
  /** Milliseconds since an arbitrary start; never decreases. */
  monotonicMs(): number
  /** Calls `fn` once, no earlier than `delayMs` (≥ 0) from now. */
  setTimer(delayMs: number, fn: () => void): Timer
}

/** The longest delay a JavaScript timer holds; a larger one would fire at once. */
const MAX_TIMER_MS = 2_147_483_647

/** The machine's own clock. Only `main.ts` files, the CLI and tests of adapters construct it. */
export function systemClock(): Clock {
  return {
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    setTimer(delayMs, fn) {
      const handle = setTimeout(fn, Math.min(Math.max(0, delayMs), MAX_TIMER_MS))
      return { cancel: () => clearTimeout(handle) }
    },
  }
}

/** Resolves after `delayMs`, or rejects with the signal's reason as soon as it aborts. */
export function sleep(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const onAbort = () => {
      timer.cancel()
      reject(signal?.reason)
    }
    const timer = clock.setTimer(delayMs, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
