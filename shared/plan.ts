/** What every pure planner returns. */

/** Why something was done, not done, or is being waited for. Printable; kept with decisions and shown by `explain`. */
export interface Reason {
  /** What it is about: an instance, service, node, machine or pool id. */
  readonly subject: string
  /** Stable, kebab-case, for programs. */
  readonly code: string
  /** One sentence for people. */
  readonly text: string
}

export interface Plan<A> {
  /** In order; empty means nothing to do. */
  readonly actions: readonly A[]
  readonly reasons: readonly Reason[]
  /** Epoch ms at which time alone can change the outcome; null when only an event can. */
  readonly wakeAtMs: number | null
}

/** The earlier of two wake-up times; null means "never by time alone". */
export function earliest(a: number | null, b: number | null): number | null {
  if (a === null) return b
  if (b === null) return a
  return Math.min(a, b)
}
