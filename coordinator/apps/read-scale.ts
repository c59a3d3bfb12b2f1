/** `x-rubato.scale`: bounds, thresholds, schedules and objective of a service that scales. */
import type { ScaleRules, ScaleSchedule } from '../../shared/model/app.ts'
import { checkCron, checkTimeZone } from './read-job.ts'
import { loadKinds, ms, partOf, SCALE_DEFAULTS, type XRubatoReading } from './read-x-rubato.ts'
import type { Report } from './report.ts'

/** Scaling rules; null when the file asks for none. */
export function scaleRules(report: Report, reading: XRubatoReading): ScaleRules | null {
  const scale = reading.value.scale
  if (scale === undefined) return null
  const min = scale.min ?? 1
  const low = scale.low ?? Math.min(SCALE_DEFAULTS.lowPercent, scale.high ?? 100)
  const high = scale.high ?? Math.max(SCALE_DEFAULTS.highPercent, scale.low ?? 0)
  if (min > scale.max) report.fault(partOf(reading, 'scale', 'min'), `min (${min}) is larger than max (${scale.max})`)
  if (low > high)
    report.fault(
      partOf(reading, 'scale', 'low'),
      `low (${low}) is larger than high (${high})`,
      'the threshold grows from low to high with the number of instances',
    )
  const steps = scale.steps ?? []
  steps.forEach((step, index) => {
    const before = steps[index - 1]
    if (before !== undefined && before.replicas >= step.replicas)
      report.fault(partOf(reading, 'scale', 'steps', index), 'steps must be in order of replicas, each number once')
  })
  const windowMs = ms(scale.window) ?? SCALE_DEFAULTS.windowMs
  if (windowMs < 1_000) report.fault(partOf(reading, 'scale', 'window'), 'window must be at least 1s')
  if (loadKinds(reading).includes('requests') && scale.capacity === undefined)
    report.fault(
      partOf(reading, 'scale', 'load'),
      'load: requests needs "capacity": how many requests one instance can hold at once',
      'add for example "capacity: 20"',
    )
  return {
    min,
    max: scale.max,
    lowPercent: low,
    highPercent: high,
    steps,
    windowMs,
    downWindowMs: ms(scale.downWindow) ?? SCALE_DEFAULTS.downWindowMs,
    warmUpMs: ms(scale.warmUp) ?? 0,
    coolDownMs: ms(scale.coolDown) ?? SCALE_DEFAULTS.coolDownMs,
    predict: scale.predict ?? 'auto',
    ...(scale.schedules === undefined ? {} : { schedules: schedulesOf(report, reading, min, scale.max) }),
    ...(scale.objective === undefined ? {} : { objective: { latencyP95Ms: latencyOf(report, reading) } }),
  }
}

/** A bound that a schedule leaves away is that of the service; none leads beyond those. */
function schedulesOf(report: Report, reading: XRubatoReading, min: number, max: number): ScaleSchedule[] {
  return (reading.value.scale?.schedules ?? []).map((schedule, index) => {
    const at = (key: string) => partOf(reading, 'scale', 'schedules', index, key)
    checkCron(report, at('at'), schedule.at)
    const timeZone = checkTimeZone(report, at('timeZone'), schedule.timeZone)
    const bounds = { min: schedule.min ?? min, max: schedule.max ?? max }
    for (const key of ['min', 'max'] as const)
      if (min <= max && (bounds[key] < min || bounds[key] > max))
        report.fault(at(key), `${key} (${bounds[key]}) is not between min (${min}) and max (${max}) of scale`, 'widen those')
    if (bounds.min > bounds.max) report.fault(at('min'), `min (${bounds.min}) is larger than max (${bounds.max})`)
    return { at: schedule.at.trim(), timeZone, ...bounds }
  })
}

function latencyOf(report: Report, reading: XRubatoReading): number {
  const latencyMs = ms(reading.value.scale?.objective?.latencyP95) ?? 0
  if (latencyMs < 1)
    report.fault(partOf(reading, 'scale', 'objective', 'latencyP95'), 'latencyP95 must be at least 1ms', 'for example 200ms')
  return latencyMs
}
