/** What follows when a run of an instance ended, became unhealthy or could not be begun: again after a while, or never. Pure; times are monotonic ms. */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import type { RestartPolicy } from '../../shared/model/unit.ts'
import { type Decision, type InstanceView, mark } from './instance-decision.ts'
import { type InstanceMemory, runOf, type SeenContainer } from './instance-memory.ts'

/** A run this long forgets earlier failures when the policy names no window. */
const DEFAULT_WINDOW_MS = 60_000

/** A container of the run ended by itself. */
export function planAfterEnd(
  view: InstanceView,
  memory: InstanceMemory,
  ended: SeenContainer,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy | undefined,
  nowMs: number,
): Decision {
  const how = ended.oomKilled
    ? 'ran out of memory'
    : ended.exitCode === null
      ? 'ended while no agent watched'
      : `exited with code ${ended.exitCode}`
  const text = wanted.length > 1 ? `${ended.container} ${how}` : how
  const clean = ended.exitCode === 0
  const again = policy?.condition === 'any' || (policy?.condition === 'on-failure' && !clean)
  if (!again || policy === undefined)
    return mark(view, { phase: clean ? 'stopped' : 'failed', message: text, run: null, notBeforeMs: 0 })
  const ranMs =
    ended.startedAtMs !== null && ended.exitedAtMs !== null
      ? Math.max(0, ended.exitedAtMs - ended.startedAtMs)
      : memory.run === null
        ? 0
        : nowMs - memory.run.sinceMs
  return planFailure(view, memory, text, ranMs, wanted, policy, nowMs)
}

/** Its probe found it unhealthy. */
export function planAfterUnhealthy(
  view: InstanceView,
  memory: InstanceMemory,
  why: string,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy | undefined,
  nowMs: number,
): Decision {
  const text = `unhealthy: ${why}`
  if (policy === undefined || policy.condition === 'none')
    return mark(view, { phase: 'failed', message: text, run: null, notBeforeMs: 0 })
  return planFailure(view, memory, text, nowMs - (memory.run?.sinceMs ?? nowMs), wanted, policy, nowMs)
}

/** Counts a failed run and sets when to try again; gives up after the policy's attempts. */
function planFailure(
  view: InstanceView,
  memory: InstanceMemory,
  text: string,
  ranMs: number,
  wanted: readonly SeenContainer[],
  policy: RestartPolicy,
  nowMs: number,
): Decision {
  return mark(view, failurePatch(memory, text, ranMs, wanted.map(runOf), policy, view.state.limits.backoffCapMs, nowMs))
}

/** What a failed run (or a start that failed) changes. */
export function failurePatch(
  memory: InstanceMemory,
  text: string,
  ranMs: number,
  runs: readonly string[],
  policy: RestartPolicy,
  backoffCapMs: number,
  nowMs: number,
): Partial<InstanceMemory> {
  const failures = ranMs >= windowOf(policy) ? 1 : memory.failures + 1
  if (policy.maxAttempts !== null && failures > policy.maxAttempts)
    return { phase: 'failed', failures, run: null, message: `${text}; given up after ${policy.maxAttempts} restarts` }
  const delayMs = backoffCeilingMs(failures - 1, { baseMs: policy.delayMs, capMs: Math.max(backoffCapMs, policy.delayMs) })
  return {
    failures,
    restarts: memory.restarts + 1,
    condemned: runs,
    notBeforeMs: nowMs + delayMs,
    run: null,
    warmAtMs: null,
    message: `${text}; restart ${failures} in ${delayMs} ms`,
  }
}

/** How long a run must last to forget the failures before it. */
export function windowOf(policy: RestartPolicy | undefined): number {
  return policy !== undefined && policy.windowMs > 0 ? policy.windowMs : DEFAULT_WINDOW_MS
}
