/**
 * How far ahead demand has to be known so that what is ordered now is ready when it comes. The one place that says so: scaling, the
 * fleet, the published forecast and the simulator look equally far. Pure.
 */

/** Learned times; null: not known yet, or nothing of the kind is needed. */
export interface LearnedLead {
  /** From an instance's placement to its readiness. */
  readonly startMs: number | null
  /** From a machine's order to its joining. */
  readonly machineMs: number | null
}

/** Demand is known once a minute: what comes within the next sample has to be seen too (design §8.2). */
export const SAMPLING_MS = 60_000

/** From the wish for one more instance, on a machine still to be bought if `machineMs` is given, to its readiness; null while nothing is known. */
export function leadOfOrder({ startMs, machineMs }: LearnedLead): number | null {
  return startMs === null && machineMs === null ? null : (startMs ?? 0) + (machineMs ?? 0)
}

/** What a forecast has to cover for an order that takes so long. */
export function horizonOf(leadMs: number): number {
  return leadMs + SAMPLING_MS
}
