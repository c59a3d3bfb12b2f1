/** Loads that instances pushed or that we pulled; newest value wins, and it goes stale after `staleAfterMs`. */
import type { Clock } from '../../shared/clock.ts'
import type { InstanceId } from '../../shared/model/identity.ts'

export interface PushedLoad {
  /** 0–100. */
  readonly loadPercent: number
  /** Backlog in instances' worth; null when not given. */
  readonly demand: number | null
}

export interface LoadInbox {
  set(instance: InstanceId, load: PushedLoad): void
  /** The newest value, or null when there is none or it is older than `staleAfterMs`. */
  get(instance: InstanceId, staleAfterMs: number): PushedLoad | null
  forget(instance: InstanceId): void
}

/** `onValue` is called with every value that comes in. */
export function createLoadInbox(clock: Clock, onValue: () => void = () => {}): LoadInbox {
  const values = new Map<InstanceId, PushedLoad & { readonly atMs: number }>()
  return {
    set(instance, load) {
      values.set(instance, { ...load, atMs: clock.monotonicMs() })
      onValue()
    },
    get(instance, staleAfterMs) {
      const value = values.get(instance)
      return value !== undefined && clock.monotonicMs() - value.atMs <= staleAfterMs ? value : null
    },
    forget: (instance) => void values.delete(instance),
  }
}
