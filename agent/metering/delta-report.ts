/** Chooses which measured values are worth sending. Pure: the caller keeps what was sent last. */
import type { InstanceUse } from '../../shared/model/observation.ts'

/** Changes below these are noise: they would keep an idle link busy. */
const LOAD_STEP_PERCENT = 0.5
const CPU_STEP_MILLIS = 5
const RELATIVE_STEP = 0.02
/** Less than this is what every idle container hears of its bridge. */
const TRAFFIC_STEP_BYTES = 4_096

export interface DeltaReport {
  readonly instances: readonly InstanceUse[]
  /** To be given next time, once this report is on its way. */
  readonly sent: ReadonlyMap<string, InstanceUse>
}

/**
 * The uses that differ from those sent last, or all when `full`. Requests count since the last sample, so one that is not zero
 * always goes out: what is left out here is never sent.
 */
export function deltaReport(sent: ReadonlyMap<string, InstanceUse>, now: readonly InstanceUse[], full: boolean): DeltaReport {
  const instances: InstanceUse[] = []
  const next = new Map<string, InstanceUse>()
  for (const use of now) {
    const before = sent.get(use.instance)
    const worth = full || before === undefined || isWorthSending(before, use)
    if (worth) instances.push(use)
    next.set(use.instance, worth || before === undefined ? use : before)
  }
  return { instances, sent: next }
}

function isWorthSending(before: InstanceUse, use: InstanceUse): boolean {
  return (
    use.requests > 0 ||
    use.errors > 0 ||
    use.denied > 0 ||
    use.latency !== undefined ||
    use.inFlight !== before.inFlight ||
    (use.loadPercent === null) !== (before.loadPercent === null) ||
    Math.abs((use.loadPercent ?? 0) - (before.loadPercent ?? 0)) >= LOAD_STEP_PERCENT ||
    use.demand !== before.demand ||
    Math.abs(use.cpuMillis - before.cpuMillis) >= Math.max(CPU_STEP_MILLIS, before.cpuMillis * RELATIVE_STEP) ||
    Math.abs(use.memoryBytes - before.memoryBytes) > before.memoryBytes * RELATIVE_STEP ||
    use.rxBytes + use.txBytes >= TRAFFIC_STEP_BYTES
  )
}
