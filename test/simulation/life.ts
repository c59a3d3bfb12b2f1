/**
 * A process that can be killed at any instant. What is handed to it goes through its life: once that ends, its timers fire no
 * more, its calls do nothing, and calls under way never return to it, while the world finishes what it was asked for. That is
 * SIGKILL as the rest of the world sees it.
 */
import type { Clock } from '../../shared/clock.ts'

export interface Life {
  readonly alive: boolean
  /** The world's clock as long as the process lives. */
  readonly clock: Clock
  /** The same object as seen by the process. */
  own<T extends object>(part: T): T
  /** Kills it. */
  end(): void
}

export function newLife(clock: Clock): Life {
  let alive = true
  const gate = <T>(promise: Promise<T>): Promise<T> =>
    new Promise((resolve, reject) => {
      promise.then(
        (value) => alive && resolve(value),
        (error: unknown) => alive && reject(error),
      )
    })
  const gateValue = (value: unknown): unknown => {
    if (value instanceof Promise) return gate(value)
    if (isAsyncIterable(value))
      return {
        [Symbol.asyncIterator]: () => {
          const inner = value[Symbol.asyncIterator]()
          return {
            next: () => gate(inner.next()),
            return: async () => (alive && inner.return ? gate(inner.return()) : { done: true, value: undefined }),
          }
        },
      }
    return value
  }
  return {
    get alive() {
      return alive
    },
    clock: {
      now: () => clock.now(),
      monotonicMs: () => clock.monotonicMs(),
      // As Node's own timers: never sooner than in 1 ms, so that time goes on whatever a loop asks for.
      setTimer: (delayMs, fn) => (alive ? clock.setTimer(Math.max(1, delayMs), () => alive && fn()) : { cancel() {} }),
    },
    own: (part) =>
      new Proxy(part, {
        get(target, key) {
          const member: unknown = Reflect.get(target, key)
          if (typeof member !== 'function') return member
          return (...args: unknown[]) => (alive ? gateValue(Reflect.apply(member, target, args)) : new Promise<never>(() => {}))
        },
      }),
    end() {
      alive = false
    },
  }
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value
}
