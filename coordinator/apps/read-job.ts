/** Jobs: `deploy.mode: replicated-job | global-job`, and `x-rubato.job`. */
import { nextMatch } from '../../shared/calendar.ts'
import { parseCron } from '../../shared/cron.ts'
import { isTimeZone, zoneOfAbbreviation } from '../../shared/time-zone.ts'
import type { JobRules } from '../../shared/model/app.ts'
import { nearest } from '../../shared/nearest.ts'
import { child, type Cursor } from './located.ts'
import type { ReadService } from './read-service.ts'
import { ms, partOf } from './read-x-rubato.ts'
import { type Report, shorten } from './report.ts'

/** Attempts after the first where a file says nothing. */
const DEFAULT_JOB_RETRIES = 3
/** Keeps the record of a run small: each completion is an instance of its own. */
export const MAX_COMPLETIONS = 1_000

/** Rules of a job; null for a service that goes on running. */
export function jobRules(report: Report, service: ReadService): JobRules | null {
  const { deploy, x, restart } = service
  const job = x.value.job
  if (!deploy.isJob) {
    if (job === undefined) return null
    if (deploy.modeCursor !== null)
      report.fault(
        partOf(x, 'job'),
        `x-rubato.job makes it a job, but deploy.mode is ${deploy.mode}`,
        `write "mode: ${deploy.mode}-job", or remove x-rubato.job`,
      )
  }
  if (x.value.scale !== undefined)
    report.fault(partOf(x, 'scale'), 'a job does not scale: its replicas are the completions it needs', 'remove scale')
  if (restart?.condition === 'any')
    report.fault(
      child(service.cursor, 'restart') ?? service.cursor,
      'a job ends, so it cannot be restarted always',
      'write "on-failure", or leave it away and set x-rubato.job.retries',
    )
  if (Object.keys(deploy.update).length > 0)
    report.warn(service.cursor, 'update_config of a job is ignored: a new revision begins a new run')
  const completions = deploy.mode === 'global' ? 1 : (deploy.replicas?.count ?? 1)
  if (completions > MAX_COMPLETIONS)
    report.fault(
      deploy.replicas?.cursor ?? service.cursor,
      `a job can have ${MAX_COMPLETIONS} completions, not ${completions}`,
      'give each instance a larger share of the work',
    )
  const parallelism = job?.parallelism ?? (deploy.mode === 'global' ? MAX_COMPLETIONS : Math.max(1, completions))
  const fromRestart =
    restart === null || restart.condition === 'any' ? null : restart.condition === 'none' ? 0 : restart.maxAttempts
  const cron = cronOf(report, service)
  if (x.value.singleton !== undefined && (parallelism > 1 || cron?.overlap === 'allow'))
    report.fault(
      partOf(x, 'singleton'),
      'a strict singleton runs once, but this job may run several times at once',
      'set job.parallelism to 1, and overlap to skip',
    )
  return {
    completions,
    parallelism,
    ...(cron === null ? {} : { cron }),
    retries: job?.retries ?? fromRestart ?? DEFAULT_JOB_RETRIES,
    deadlineMs: ms(job?.deadline) || null,
  }
}

function cronOf(report: Report, service: ReadService): NonNullable<JobRules['cron']> | null {
  const { x } = service
  const { cron, timeZone, overlap } = x.value.job ?? {}
  if (cron === undefined) {
    for (const key of ['timeZone', 'overlap'] as const)
      if (x.value.job?.[key] !== undefined)
        report.fault(partOf(x, 'job', key), `${key} means nothing without "cron"`, 'add for example cron: "30 2 * * *"')
    return null
  }
  const zone = checkTimeZone(report, partOf(x, 'job', 'timeZone'), timeZone)
  checkCron(report, partOf(x, 'job', 'cron'), cron)
  return { at: cron.trim(), timeZone: zone, overlap: overlap ?? 'skip' }
}

/** Reports what is wrong with a cron expression, with the place within it. */
export function checkCron(report: Report, cursor: Cursor, text: string): void {
  const read = parseCron(text)
  if (!read.ok) {
    const { column, message, hint } = read.fault
    report.fault(cursor, `cron expression "${shorten(text)}", column ${column}: ${message}`, hint)
  } else if (nextMatch(read.cron, 'UTC', 0) === null)
    report.fault(cursor, `cron expression "${shorten(text)}" never matches`, 'no such day is in any year')
}

/** The time zone, `UTC` where none is given (or where it is wrong: then there is a fault). */
export function checkTimeZone(report: Report, cursor: Cursor, name: string | undefined): string {
  if (name === undefined || name === 'UTC') return 'UTC'
  if (isTimeZone(name)) return name
  const near = zoneOfAbbreviation(name) ?? nearest(name, Intl.supportedValuesOf('timeZone'))
  report.fault(
    cursor,
    `there is no time zone "${shorten(name)}"`,
    near === null ? 'write a name of the IANA database, such as "Europe/Berlin"' : `did you mean "${near}"?`,
  )
  return 'UTC'
}
