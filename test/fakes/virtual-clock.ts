/**
 * Virtual time. Timers fire in order of their due time (then of their making); between two of them every pending promise
 * is settled first. Nothing sleeps for real.
 */
import type { Clock, Timer } from '../../shared/clock.ts'

export interface VirtualClock extends Clock {
  /** Runs everything due within `ms` from now, then stands at now + ms. */
  advance(ms: number): Promise<void>
  /** Advances in small steps until `condition` holds; throws with `what` after `limitMs` of virtual time. */
  until(condition: () => boolean, what: string, limitMs?: number): Promise<void>
  /** Moves the wall clock alone (fault row 37); monotonic time and timers stay. */
  jumpWall(ms: number): void
  /** Timers not yet fired or cancelled: 0 when everything was stopped properly. */
  readonly pendingTimers: number
}

interface Entry {
  readonly dueMs: number
  readonly order: number
  readonly fn: () => void
  cancelled: boolean
}

/** `afterStep` is called after each timer, when every promise it settled has been followed; what it throws ends the advance. */
export function virtualClock(
  startWallMs = Date.UTC(2026, 0, 5),
  options: { readonly afterStep?: () => void } = {},
): VirtualClock {
  let elapsedMs = 0
  let wallOffsetMs = startWallMs
  let order = 0
  const heap: Entry[] = []

  const settle = () => new Promise<void>((resolve) => setImmediate(resolve))
  const advanceTo = async (targetMs: number) => {
    await settle()
    for (;;) {
      const next = heap[0]
      if (!next || next.dueMs > targetMs) break
      pop(heap)
      if (next.cancelled) continue
      elapsedMs = Math.max(elapsedMs, next.dueMs)
      next.fn()
      await settle()
      options.afterStep?.()
    }
    elapsedMs = targetMs
  }

  return {
    now: () => Math.floor(wallOffsetMs + elapsedMs),
    monotonicMs: () => elapsedMs,
    setTimer(delayMs, fn): Timer {
      const entry: Entry = { dueMs: elapsedMs + Math.max(0, delayMs), order: order++, fn, cancelled: false }
      push(heap, entry)
      return {
        cancel: () => {
          entry.cancelled = true
        },
      }
    },
    advance: (ms) => advanceTo(elapsedMs + ms),
    async until(condition, what, limitMs = 600_000) {
      const endMs = elapsedMs + limitMs
      await settle()
      while (!condition()) {
        const next = heap.find((entry) => !entry.cancelled)
        if (elapsedMs >= endMs) throw new Error(`virtual time ran out (${limitMs} ms) waiting until ${what}`)
        await advanceTo(
          Math.min(endMs, next ? Math.max(elapsedMs + 1, Math.min(heap[0]?.dueMs ?? endMs, elapsedMs + 1000)) : endMs),
        )
      }
    },
    jumpWall(ms) {
      wallOffsetMs += ms
    },
    get pendingTimers() {
      return heap.filter((entry) => !entry.cancelled).length
    },
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.dueMs < b.dueMs || (a.dueMs === b.dueMs && a.order < b.order)
}

function push(heap: Entry[], entry: Entry): void {
  let index = heap.length
  heap.push(entry)
  while (index > 0) {
    const parent = (index - 1) >> 1
    const above = heap[parent] as Entry
    if (!before(entry, above)) break
    heap[index] = above
    index = parent
  }
  heap[index] = entry
}

function pop(heap: Entry[]): void {
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return
  let index = 0
  for (;;) {
    let child = 2 * index + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && before(heap[child + 1] as Entry, heap[child] as Entry)) child += 1
    if (!before(heap[child] as Entry, last)) break
    heap[index] = heap[child] as Entry
    index = child
  }
  heap[index] = last
}
