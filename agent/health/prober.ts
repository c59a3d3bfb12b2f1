/**
 * Runs the probes of every watched container and holds what came of them. One probe per container at a time; a probe never
 * outlives its time-out. Who watches is told of every change of status.
 */
import type { Clock, Timer } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { HealthSpec } from '../../shared/model/unit.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { type HealthState, nextProbeAtMs, type ProbeResult, recordProbe, startHealth } from './plan-health.ts'
import type { ProbeNetwork } from './probes.ts'

export interface ProbeTarget {
  /** One run of one container: a restart is another key. */
  readonly key: string
  readonly containerId: string
  readonly runtime: Runtime
  readonly spec: HealthSpec
  readonly address: string | null
  readonly portMap: Readonly<Record<number, number>>
}

export interface Health {
  readonly status: 'starting' | 'healthy' | 'unhealthy'
  /** Why it is not healthy, for people. */
  readonly text: string
}

export interface Prober {
  /** Watches exactly these from now on: new keys start afresh, missing ones end. */
  watch(targets: readonly ProbeTarget[]): void
  /** null when the key is not watched. */
  health(key: string): Health | null
  /** Called after each change of a status. */
  onChange(listener: () => void): void
  stop(): void
}

export interface ProberDeps {
  readonly clock: Clock
  readonly logger: Logger
  readonly network: ProbeNetwork
}

interface Watch {
  readonly target: ProbeTarget
  readonly abort: AbortController
  state: HealthState
  timer: Timer | null
}

export function createProber({ clock, logger, network }: ProberDeps): Prober {
  const watches = new Map<string, Watch>()
  const listeners: (() => void)[] = []

  const probe = async ({ target, abort }: Watch): Promise<ProbeResult> => {
    const { spec } = target
    if (spec.probe.kind === 'exec') {
      try {
        const code = await target.runtime.exec(target.containerId, spec.probe.argv, spec.timeoutMs)
        return code === 0 ? { healthy: true, text: '' } : { healthy: false, text: `the health command exited with code ${code}` }
      } catch (error) {
        return { healthy: false, text: messageOf(error) }
      }
    }
    if (target.address === null) return { healthy: false, text: 'the container has no address' }
    const port = target.portMap[spec.probe.port] ?? spec.probe.port
    return spec.probe.kind === 'http'
      ? network.http({ address: target.address, port, path: spec.probe.path }, spec.timeoutMs, abort.signal)
      : network.tcp({ address: target.address, port }, spec.timeoutMs, abort.signal)
  }

  const schedule = (watch: Watch) => {
    watch.timer = clock.setTimer(Math.max(0, nextProbeAtMs(watch.state) - clock.monotonicMs()), () => {
      const begunAtMs = clock.monotonicMs()
      probe(watch)
        .then((result) => {
          if (watch.abort.signal.aborted) return
          const before = watch.state
          watch.state = recordProbe(before, watch.target.spec, result, begunAtMs, clock.monotonicMs())
          if (watch.state.status !== before.status) {
            logger.info('health changed', {
              container: watch.target.containerId,
              from: before.status,
              to: watch.state.status,
              reason: watch.state.text,
            })
            for (const listener of listeners) listener()
          }
          schedule(watch)
        })
        .catch((error) => logger.error('a probe broke', { container: watch.target.containerId, error: messageOf(error) }))
    })
  }

  const end = (watch: Watch) => {
    watch.abort.abort(new Error('no longer watched'))
    watch.timer?.cancel()
  }

  return {
    watch(targets) {
      const wanted = new Set(targets.map((target) => target.key))
      for (const [key, watch] of watches)
        if (!wanted.has(key)) {
          end(watch)
          watches.delete(key)
        }
      for (const target of targets) {
        if (watches.has(target.key)) continue
        const watch: Watch = {
          target,
          abort: new AbortController(),
          state: startHealth(target.spec, clock.monotonicMs()),
          timer: null,
        }
        watches.set(target.key, watch)
        schedule(watch)
      }
    },
    health(key) {
      const state = watches.get(key)?.state
      return state === undefined ? null : { status: state.status, text: state.text }
    },
    onChange: (listener) => void listeners.push(listener),
    stop() {
      for (const watch of watches.values()) end(watch)
      watches.clear()
    },
  }
}
