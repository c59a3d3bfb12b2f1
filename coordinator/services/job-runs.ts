/** Runs of a job: when one begins, what becomes of times that cannot be kept, and how many are remembered. Pure. */
import type { JobRules } from '../../shared/model/app.ts'
import type { JobRecord, JobRun } from '../state/objects.ts'
import { type Draft, wake } from './draft.ts'
import { type JobEvent, reason, unmetDependency } from './service-plan.ts'

/** A scheduled time that passed longer ago (the coordinator was down, a dependency was missing) is not made up for. */
export const CATCH_UP_MS = 3_600_000
/** Runs remembered beside those under way: keeps the service's record small. */
export const MAX_ENDED_RUNS = 10
/** `overlap: allow` has an end: more runs at once tell that the job cannot keep up. */
const MAX_RUNS_AT_ONCE = 10
/** Completions of runs under way, together: what is known of each must fit into the service's record. */
const MAX_TASKS_AT_ONCE = 3_000

/** What is decided further ahead than this was decided by a wrong clock. */
const MAX_AHEAD_MS = 24 * 3_600_000

export function isRunning(run: JobRun): boolean {
  return run.outcome === 'running'
}

/** The record with the runs that are due now; runs that may not go on are cancelled. Events are added to `events`. */
export function beginRuns(draft: Draft, rules: JobRules, job: JobRecord, events: JobEvent[]): JobRecord {
  const schedule = rules.cron === undefined ? '' : `${rules.cron.at} ${rules.cron.timeZone}`
  const believed = beforeLong(draft, job, events)
  // A schedule begins when it is deployed, not with its last match before.
  const known =
    believed.schedule === schedule ? believed : { ...believed, schedule, decidedAtMs: Math.max(believed.decidedAtMs, draft.now) }
  return rules.cron === undefined ? beginOnce(draft, known, events) : beginScheduled(draft, rules.cron, known, events)
}

/** A clock that ran far ahead and was set right must not silence the job until then: it goes on from now. */
function beforeLong({ now }: Draft, job: JobRecord, events: JobEvent[]): JobRecord {
  if (job.decidedAtMs <= now + MAX_AHEAD_MS) return job
  const days = Math.round((job.decidedAtMs - now) / MAX_AHEAD_MS)
  const message = `its times counted as decided until ${days} days from now: the clock was wrong then, and it goes on from now`
  events.push({ type: 'job.rescheduled', message, severity: 'warning' })
  return { ...job, decidedAtMs: now }
}

/** Once for each deployed spec; in mode global again on nodes that joined since. */
function beginOnce(draft: Draft, job: JobRecord, events: JobEvent[]): JobRecord {
  const { input, spec, now } = draft
  const latest = job.runs.find((run) => run.scheduledAtMs === null)
  if (latest !== undefined && latest.specHash === spec.specHash) {
    if (spec.mode !== 'global' || latest.outcome !== 'succeeded') return job
    const open = input.globalNodes.filter((id) => !latest.done.includes(id))
    if (open.length === 0) return job
    const done = latest.done.filter((id) => input.node(id) !== undefined)
    const again: JobRun = { ...latest, outcome: 'running', startedAtMs: now, endedAtMs: null, message: '', done, failures: {} }
    events.push({ type: 'job.started', message: `run ${latest.id} goes on for ${open.length} new nodes`, severity: 'info' })
    return { ...job, runs: job.runs.map((run) => (run === latest ? again : run)) }
  }
  const runs = job.runs.map((run) =>
    isRunning(run) ? ended(run, 'cancelled', `revision ${input.app.revision} takes its place`, now, events) : run,
  )
  if (isHeldUp(draft)) return { ...job, runs }
  return { ...job, runs: [newRun(draft, null, events), ...runs] }
}

function beginScheduled(draft: Draft, cron: NonNullable<JobRules['cron']>, job: JobRecord, events: JobEvent[]): JobRecord {
  const { now } = draft
  const { previousMs: dueMs, nextMs } = draft.input.calendar.around(cron.at, cron.timeZone, now)
  if (nextMs !== null) wake(draft, nextMs)
  if (dueMs === null || dueMs <= job.decidedAtMs) return job
  const decided = { ...job, decidedAtMs: dueMs }
  // Begun already, while the clock ran ahead.
  if (job.runs.some(({ scheduledAtMs }) => scheduledAtMs === dueMs)) return decided
  if (now - dueMs > CATCH_UP_MS) return { ...decided, runs: [unbegun(draft, dueMs, 'missed', events), ...job.runs] }
  if (isHeldUp(draft)) return job
  const active = job.runs.filter(isRunning)
  if (cron.overlap === 'replace' || active.length === 0) {
    const runs = job.runs.map((run) =>
      isRunning(run) ? ended(run, 'cancelled', 'the next run takes its place', now, events) : run,
    )
    return { ...decided, runs: [newRun(draft, dueMs, events), ...runs] }
  }
  const run = newRun(draft, dueMs, [])
  const tasks = active.reduce((sum, { completions }) => sum + completions, run.completions)
  if (cron.overlap === 'skip' || active.length >= MAX_RUNS_AT_ONCE || tasks > MAX_TASKS_AT_ONCE)
    return { ...decided, runs: [unbegun(draft, dueMs, 'skipped', events), ...job.runs] }
  return { ...decided, runs: [newRun(draft, dueMs, events), ...job.runs] }
}

/** A dependency that is not met holds up the run, not the job: it begins once it is, if that is soon enough. */
function isHeldUp(draft: Draft): boolean {
  const unmet = unmetDependency(draft.input, draft.spec)
  if (unmet === undefined) return false
  draft.reasons.push(
    reason(draft.input.service.id, 'waiting-for-dependency', `waits until ${unmet.service} is ${unmet.condition}`),
  )
  return true
}

function newRun({ input, spec, now }: Draft, scheduledAtMs: number | null, events: JobEvent[]): JobRun {
  const id = scheduledAtMs === null ? `r${input.app.revision}` : `t${scheduledAtMs}`
  const due = scheduledAtMs === null ? '' : `, due ${new Date(scheduledAtMs).toISOString()}`
  events.push({ type: 'job.started', message: `run ${id}${due}`, severity: 'info' })
  return {
    id,
    scheduledAtMs,
    revision: input.app.revision,
    specHash: spec.specHash,
    startedAtMs: now,
    endedAtMs: null,
    outcome: 'running',
    message: '',
    completions: spec.mode === 'global' ? input.globalNodes.length : (spec.job?.completions ?? 0),
    succeeded: 0,
    done: [],
    failures: {},
  }
}

/** A scheduled time at which nothing was begun. */
function unbegun(draft: Draft, scheduledAtMs: number, outcome: 'skipped' | 'missed', events: JobEvent[]): JobRun {
  const due = new Date(scheduledAtMs).toISOString()
  const message =
    outcome === 'skipped' ? `due ${due}, but earlier runs are not over` : `due ${due}, more than ${CATCH_UP_MS / 60_000} min ago`
  events.push({ type: `job.${outcome}`, message, severity: 'warning' })
  const run = newRun(draft, scheduledAtMs, [])
  return { ...run, completions: 0, endedAtMs: draft.now, outcome, message }
}

export function ended(
  run: JobRun,
  outcome: 'succeeded' | 'failed' | 'cancelled',
  message: string,
  now: number,
  events: JobEvent[],
): JobRun {
  const severity = outcome === 'failed' ? 'error' : outcome === 'cancelled' ? 'warning' : 'info'
  events.push({ type: `job.${outcome}`, message: `run ${run.id}: ${message}`, severity })
  return { ...run, outcome, message, endedAtMs: now }
}

/** Bounded: all that run, the newest others; of times in a row that were left out only the latest. */
export function kept(job: JobRecord): JobRecord {
  const runs: JobRun[] = []
  const latestOnce = job.runs.find((run) => run.scheduledAtMs === null)
  let others = 0
  let before: JobRun['outcome'] | null = null
  for (const run of job.runs) {
    const isRepeat = run.outcome === before && (run.outcome === 'skipped' || run.outcome === 'missed')
    if (!isRunning(run)) before = run.outcome
    if (isRepeat) continue
    if (!isRunning(run) && ++others > MAX_ENDED_RUNS) continue
    const { retried: _retried, ...rest } = run
    runs.push(isRunning(run) || run === latestOnce ? run : { ...rest, done: [], failures: {} })
  }
  return { ...job, runs }
}
