/**
 * Which services scaling must look at: those with news, and those that time moves. The others rest, so that a tick costs what
 * happens and not what there is. Everything is looked at once a minute nevertheless.
 */
import { type NodeId, type ServiceId, serviceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { Observed } from '../state/observed.ts'
import type { State } from '../state/state.ts'

export interface Attention {
  /** Begins to listen, with every service that scales at present. */
  start(): void
  stop(): void
  /** Services to look at now, those whose time has come included. */
  due(monotonicMs: number): readonly ServiceId[]
  /** Nothing but news changes it until `untilMs` (monotonic). */
  rest(id: ServiceId, untilMs: number): void
  /** It went. */
  forget(id: ServiceId): void
}

const RESYNC_MS = 60_000

export function createAttention(state: State, observed: Observed): Attention {
  const awake = new Set<ServiceId>()
  const resting = new Map<ServiceId, number>()
  let nextWakeMs = Number.NEGATIVE_INFINITY
  let resyncAtMs = Number.NEGATIVE_INFINITY
  let unsubscribe: (() => void)[] = []

  const wake = (id: ServiceId) => {
    if (resting.delete(id)) awake.add(id)
  }
  const addApp = (name: string) => {
    for (const spec of state.snapshot.get('app', name)?.spec.services ?? []) {
      if (spec.scale === null) continue
      const id = serviceId(name, spec.name)
      resting.delete(id)
      awake.add(id)
    }
  }
  const wakeNode = (nodeId: NodeId) => {
    for (const { id } of state.snapshot.get('assignments', nodeId)?.instances ?? []) wake(serviceIdOf(id))
  }

  return {
    start() {
      for (const name of state.snapshot.all('app').keys()) addApp(name)
      unsubscribe = [
        state.onChange((change) => {
          for (const { kind, key } of change.keys) {
            if (kind === 'service') wake(key)
            else if (kind === 'app') addApp(key)
            else if (kind === 'assignments') wakeNode(key)
          }
        }),
        observed.onChange((change) => {
          for (const id of change.instances) wake(serviceIdOf(id))
          if (!change.useOnly) for (const id of change.nodes) wakeNode(id)
        }),
      ]
    },
    stop() {
      for (const each of unsubscribe) each()
      unsubscribe = []
    },
    due(monotonicMs) {
      if (monotonicMs >= resyncAtMs) {
        resyncAtMs = monotonicMs + RESYNC_MS
        for (const id of [...resting.keys()]) wake(id)
      } else if (monotonicMs >= nextWakeMs) {
        nextWakeMs = Number.POSITIVE_INFINITY
        for (const [id, untilMs] of [...resting]) {
          if (untilMs <= monotonicMs) wake(id)
          else nextWakeMs = Math.min(nextWakeMs, untilMs)
        }
      }
      return [...awake]
    },
    rest(id, untilMs) {
      awake.delete(id)
      resting.set(id, untilMs)
      nextWakeMs = Math.min(nextWakeMs, untilMs)
    },
    forget(id) {
      awake.delete(id)
      resting.delete(id)
    },
  }
}
