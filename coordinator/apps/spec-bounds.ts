/** How large an app may be: asked before anything else, of what may have any shape. Pure. */
import type { Fault } from '../../shared/errors.ts'

/** What a spec may take in the store and on the wire, secrets and configs included. */
export const MAX_SPEC_BYTES = 256 * 1024
/** Schedules of scaling and cron jobs of one app: each is read when it is deployed, and asked for whenever one of its times has come. */
export const MAX_SCHEDULES = 500

/** Too large, or with too many schedules; what has no such parts has no fault. */
export function checkBounds(spec: unknown): readonly Fault[] {
  const faults: Fault[] = []
  if (Buffer.byteLength(JSON.stringify(spec) ?? '') > MAX_SPEC_BYTES)
    faults.push({
      path: '',
      message: `the spec is larger than ${MAX_SPEC_BYTES / 1024} KiB`,
      hint: 'put large files into images or volumes',
    })
  const schedules = countSchedules(spec)
  if (schedules > MAX_SCHEDULES) faults.push({ path: '/services', ...tooManySchedules(schedules) })
  return faults
}

export function tooManySchedules(count: number): { readonly message: string; readonly hint: string } {
  return {
    message: `the app has ${count} schedules and cron jobs; at most ${MAX_SCHEDULES} are possible`,
    hint: 'one expression may hold lists and ranges, as in "0 8,12 * * mon-fri"; else make several apps of it',
  }
}

/** Schedules and cron jobs of all services. */
export function countSchedules(spec: unknown): number {
  let count = 0
  for (const service of listOf(fieldOf(spec, 'services'))) {
    count += listOf(fieldOf(fieldOf(service, 'scale'), 'schedules')).length
    if (fieldOf(fieldOf(service, 'job'), 'cron') !== undefined) count += 1
  }
  return count
}

function fieldOf(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, key) ? Reflect.get(value, key) : undefined
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}
