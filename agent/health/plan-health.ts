/**
 * Health of one container by Compose `healthcheck` rules. Pure; all times are monotonic ms.
 *
 * Counted probes run as Compose has them: the first one `interval` after the start (every `start_interval` within
 * `start_period`), each next one that long after the last. `retries` counted failures in a row make it unhealthy; failures
 * within the start period do not count, and a success ends the start period. Until the first success we also probe eagerly, a
 * few times a second at first: such probes never count as failures, they only let readiness be seen without a long wait.
 */
import type { HealthSpec } from '../../shared/model/unit.ts'

export interface HealthState {
  readonly status: 'starting' | 'healthy' | 'unhealthy'
  /** Monotonic ms at which the container was first seen running. */
  readonly startedAtMs: number
  /** Counted failures in a row. */
  readonly failures: number
  /** When the next counted probe is due. */
  readonly nextCountedAtMs: number
  /** When the next eager probe is due; null once it was healthy. */
  readonly nextEagerAtMs: number | null
  readonly eagerProbes: number
  /** Why the last probe failed; '' after a success. */
  readonly text: string
}

export interface ProbeResult {
  readonly healthy: boolean
  /** Why not, for people. */
  readonly text: string
}

/** First wait between eager probes; each next one is half as long again, so that a slow starter is not hammered. */
const EAGER_FIRST_MS = 100
/** An exec probe starts a process in the container: never more often than this. */
const EAGER_EXEC_MS = 1_000
const EAGER_CAP_MS = 5_000

export function startHealth(spec: HealthSpec, nowMs: number): HealthState {
  return {
    status: 'starting',
    startedAtMs: nowMs,
    failures: 0,
    nextCountedAtMs: nowMs + (spec.startPeriodMs > 0 ? Math.min(spec.startIntervalMs, spec.intervalMs) : spec.intervalMs),
    nextEagerAtMs: nowMs,
    eagerProbes: 0,
    text: 'no probe has succeeded yet',
  }
}

/** When to probe next. */
export function nextProbeAtMs(state: HealthState): number {
  return Math.min(state.nextCountedAtMs, state.nextEagerAtMs ?? Number.POSITIVE_INFINITY)
}

/** The state after a probe that was begun at `begunAtMs` and ended now. */
export function recordProbe(
  state: HealthState,
  spec: HealthSpec,
  result: ProbeResult,
  begunAtMs: number,
  nowMs: number,
): HealthState {
  if (result.healthy)
    return {
      ...state,
      status: 'healthy',
      failures: 0,
      nextCountedAtMs: nowMs + Math.max(1, spec.intervalMs),
      nextEagerAtMs: null,
      text: '',
    }
  const wasCounted = begunAtMs >= state.nextCountedAtMs
  const inStartPeriod = state.status === 'starting' && begunAtMs - state.startedAtMs < spec.startPeriodMs
  const failures = state.failures + (wasCounted && !inStartPeriod ? 1 : 0)
  const stillInStartPeriod = state.status === 'starting' && nowMs - state.startedAtMs < spec.startPeriodMs
  const eagerProbes = state.eagerProbes + 1
  const eagerMs = Math.min(
    EAGER_CAP_MS,
    Math.max(spec.intervalMs, EAGER_FIRST_MS),
    Math.max(EAGER_FIRST_MS * 1.5 ** Math.min(eagerProbes, 30), spec.probe.kind === 'exec' ? EAGER_EXEC_MS : 0),
  )
  return {
    ...state,
    status: failures >= Math.max(1, spec.retries) ? 'unhealthy' : state.status,
    failures,
    nextCountedAtMs: wasCounted
      ? nowMs + Math.max(1, stillInStartPeriod ? Math.min(spec.startIntervalMs, spec.intervalMs) : spec.intervalMs)
      : state.nextCountedAtMs,
    nextEagerAtMs: state.nextEagerAtMs === null ? null : nowMs + eagerMs,
    eagerProbes,
    text: result.text,
  }
}
