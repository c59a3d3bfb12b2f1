/** The load of one instance from its sources (design §4, §8.1). Pure. */
import type { Resources } from '../../shared/model/resources.ts'
import type { LoadSource } from '../../shared/model/unit.ts'

export interface LoadInput {
  /** Empty means CPU. */
  readonly sources: readonly LoadSource[]
  readonly limits: Partial<Resources>
  readonly reservations: Partial<Resources>
  /** Use between the last two samples; null before the second one, or when the runtime did not say. */
  readonly cpuMillis: number | null
  readonly memoryBytes: number | null
  /** Requests under way at this moment. */
  readonly inFlight: number
  /** Newest pushed or pulled value, fresh enough; null when there is none. */
  readonly customPercent: number | null
  /** Memory of the node, which an instance without limit and reservation shares. */
  readonly nodeMemoryBytes: number
}

/** One core: what an instance without limit and reservation is measured against. */
const ONE_CORE_MILLIS = 1_000

/** The largest of the sources, 0–100, to one decimal; null when none gave a value (missing data must not look like idleness). */
export function planLoad(input: LoadInput): number | null {
  let largest: number | null = null
  const sources: readonly LoadSource[] = input.sources.length > 0 ? input.sources : [{ kind: 'cpu' }]
  for (const source of sources) {
    const percent = percentOf(source, input)
    if (percent !== null && (largest === null || percent > largest)) largest = percent
  }
  return largest === null ? null : Math.round(largest * 10) / 10
}

function percentOf(source: LoadSource, input: LoadInput): number | null {
  switch (source.kind) {
    case 'cpu':
      return share(input.cpuMillis, firstPositive(input.limits.cpuMillis, input.reservations.cpuMillis) ?? ONE_CORE_MILLIS)
    case 'memory':
      return share(
        input.memoryBytes,
        firstPositive(input.limits.memoryBytes, input.reservations.memoryBytes) ?? input.nodeMemoryBytes,
      )
    case 'custom':
      return input.customPercent === null ? null : share(input.customPercent, 100)
    case 'requests':
      return share(input.inFlight, source.capacity)
  }
}

/** Part of a whole in percent, at most 100; null when either is no usable number. */
function share(part: number | null, whole: number): number | null {
  if (part === null || !Number.isFinite(part) || part < 0 || !Number.isFinite(whole) || whole <= 0) return null
  return Math.min(100, (part / whole) * 100)
}

function firstPositive(...values: readonly (number | undefined)[]): number | null {
  for (const value of values) if (value !== undefined && value > 0) return value
  return null
}
