/** A promise was broken; `invariant` is its number in docs/simulation.md. */
export class InvariantViolation extends Error {
  readonly invariant: string
  constructor(invariant: string, message: string) {
    super(`${invariant}: ${message}`)
    this.name = 'InvariantViolation'
    this.invariant = invariant
  }
}
