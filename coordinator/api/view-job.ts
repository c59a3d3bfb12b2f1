/** Jobs as the API shows them. Pure. */
import { type Calendar, createCalendar } from '../../shared/calendar.ts'
import { InputError } from '../../shared/errors.ts'
import type { JobRules, ServiceSpec } from '../../shared/model/app.ts'
import type { ServiceRecord } from '../state/objects.ts'
import type { JobView } from './schemas.ts'

/**
 * What a job wants now and has done of it; null for a service that goes on running. Between cron's times it wants nothing. Never
 * throws: a stored schedule that this host cannot read has no next time.
 */
export function viewJob(
  spec: ServiceSpec,
  record: Pick<ServiceRecord, 'job'> | undefined,
  calendar: Calendar = createCalendar(),
): { readonly job: JobView; readonly desired: number; readonly completed: number } | null {
  if (spec.job === undefined) return null
  const { completions, parallelism, retries, deadlineMs, cron } = spec.job
  const runs = record?.job?.runs ?? []
  const current = cron
    ? runs.find(({ outcome }) => outcome === 'running')
    : runs.find(({ scheduledAtMs, specHash }) => scheduledAtMs === null && specHash === spec.specHash)
  const decidedAtMs = record?.job?.decidedAtMs
  return {
    desired: current?.completions ?? (cron ? 0 : completions),
    completed: current?.succeeded ?? 0,
    job: {
      completions,
      parallelism,
      retries,
      deadlineMs,
      cron: cron?.at ?? null,
      timeZone: cron?.timeZone ?? null,
      nextRunAtMs: cron && decidedAtMs !== undefined ? nextOf(cron, decidedAtMs, calendar) : null,
      runs: runs.map(
        ({ revision: _revision, specHash: _hash, done: _done, failures: _failures, retried: _retried, ...run }) => run,
      ),
    },
  }
}

function nextOf({ at, timeZone }: NonNullable<JobRules['cron']>, afterMs: number, calendar: Calendar): number | null {
  try {
    return calendar.around(at, timeZone, afterMs).nextMs
  } catch (error) {
    if (error instanceof InputError) return null
    throw error
  }
}

/** The latest run that ended by itself failed. */
export function hasFailed(job: Pick<JobView, 'runs'>): boolean {
  const latest = job.runs.find(({ outcome }) => outcome === 'succeeded' || outcome === 'failed' || outcome === 'running')
  return latest?.outcome === 'failed'
}
