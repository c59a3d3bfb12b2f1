/** What a benchmark yields; `make bench` adds machine, date and commit. */
export interface BenchResult {
  /** `<area>.<what>`, stable. */
  readonly name: string
  readonly value: number
  readonly unit: string
  readonly better: 'higher' | 'lower'
  /** null: only to be watched. */
  readonly target: number | null
  /** What it was compared with in the same run, with its figures. */
  readonly peer: string | null
  /** Ours divided by the peer's. */
  readonly ratio: number | null
}
