/** `healthcheck` of a service, together with the probe of `x-rubato.health`. */
import type { HealthSpec, Probe } from '../../shared/model/unit.ts'
import { HEALTHCHECK_KEYS } from './compose-schema.ts'
import { child, type Cursor } from './located.ts'
import type { Report } from './report.ts'
import { durationMs, fields, flag, integer, texts } from './values.ts'

/** What Compose and the engine take where a file says nothing. */
const HEALTH_DEFAULTS = {
  intervalMs: 30_000,
  timeoutMs: 30_000,
  retries: 3,
  startPeriodMs: 0,
  startIntervalMs: 5_000,
} as const

/** The check, or undefined for none. `probe` (from x-rubato) takes the place of `test`. */
export function readHealth(report: Report, service: Cursor, probe: Probe | null): HealthSpec | undefined {
  const cursor = child(service, 'healthcheck')
  const check = fields(report, cursor, HEALTHCHECK_KEYS, 'healthcheck')
  const isDisabled = flag(report, check?.get('disable'), 'disable') ?? false
  const test = check?.get('test')
  const tested = test === undefined ? null : readTest(report, test)
  const times = {
    intervalMs: positive(report, check?.get('interval'), 'interval') ?? HEALTH_DEFAULTS.intervalMs,
    timeoutMs: positive(report, check?.get('timeout'), 'timeout') ?? HEALTH_DEFAULTS.timeoutMs,
    retries: integer(report, check?.get('retries'), 'retries', { min: 0, max: 10_000 }) || HEALTH_DEFAULTS.retries,
    startPeriodMs: durationMs(report, check?.get('start_period'), 'start_period') ?? HEALTH_DEFAULTS.startPeriodMs,
    startIntervalMs: positive(report, check?.get('start_interval'), 'start_interval') ?? HEALTH_DEFAULTS.startIntervalMs,
  }
  if (isDisabled || tested === 'none') {
    if (probe === null) return undefined
    return { probe, ...times }
  }
  if (probe !== null) {
    if (test !== undefined) report.fault(test, 'both healthcheck.test and x-rubato.health are given', 'keep one of them')
    return { probe, ...times }
  }
  if (tested !== null) return { probe: tested, ...times }
  if (check !== undefined && test === undefined)
    report.warn(
      check.cursor,
      'a healthcheck without "test" asks for the one inside the image, which Rubato does not read: no check is made',
    )
  return undefined
}

function readTest(report: Report, cursor: Cursor): Probe | 'none' | null {
  if (cursor.node.kind === 'scalar') {
    const [only] = texts(report, cursor, 'test')
    if (only === undefined || only.value.trim() === '') return 'none'
    return shell(only.value)
  }
  const [kind, ...rest] = texts(report, cursor, 'test').map((item) => item.value)
  if (kind === undefined || kind === 'NONE') return 'none'
  if (kind === 'CMD-SHELL') {
    if (rest.length > 0) return shell(rest.join(' '))
  } else if (kind === 'CMD') {
    if (rest.length > 0) return { kind: 'exec', argv: rest }
  } else {
    report.fault(
      cursor,
      'the first word of test must be "CMD", "CMD-SHELL" or "NONE"',
      'or write the whole test as text, which a shell runs',
    )
    return null
  }
  report.fault(cursor, `test has nothing after "${kind}"`)
  return null
}

function shell(line: string): Probe {
  return { kind: 'exec', argv: ['/bin/sh', '-c', line] }
}

function positive(report: Report, cursor: Cursor | undefined, what: string): number | undefined {
  const value = durationMs(report, cursor, what)
  // Compose: 0 means the default.
  return value === 0 ? undefined : value
}
