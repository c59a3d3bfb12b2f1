/**
 * Finished (or unfinished: parts of a step add up) steps that wait for the next flush, of all series together: columns of numbers,
 * chained per series. Adding allocates only when the columns grow; what one series holds is found without looking at the others.
 */

const FIRST_CAPACITY = 1 << 12
/** About 40 MB: 10 s of 1,000,000 series, or an hour of 2,800. Beyond it the disk has refused for long, and the rest is dropped. */
export const MAX_HELD = 1_000_000
const NONE = -1

export class HeldPoints {
  #step = new Int32Array(FIRST_CAPACITY)
  #next = new Int32Array(FIRST_CAPACITY)
  #sum = new Float64Array(FIRST_CAPACITY)
  #count = new Float64Array(FIRST_CAPACITY)
  #max = new Float64Array(FIRST_CAPACITY)
  #used = 0
  #free = NONE
  #size = 0
  readonly #limit: number

  constructor(limit = MAX_HELD) {
    this.#limit = limit
  }

  get size(): number {
    return this.#size
  }

  /** Adds in front of the chain that begins at `head` (−1: empty) and returns the new head; null when there is no room. */
  push(head: number, step: number, sum: number, count: number, max: number): number | null {
    let at = this.#free
    if (at !== NONE) this.#free = this.#next[at] ?? NONE
    else {
      if (this.#used >= this.#limit) return null
      if (this.#used === this.#step.length) this.#grow()
      at = this.#used
      this.#used += 1
    }
    this.#step[at] = step
    this.#next[at] = head
    this.#sum[at] = sum
    this.#count[at] = count
    this.#max[at] = max
    this.#size += 1
    return at
  }

  each(head: number, visit: (step: number, sum: number, count: number, max: number) => void): void {
    for (let at = head; at !== NONE; at = this.#next[at] ?? NONE)
      visit(this.#step[at] ?? 0, this.#sum[at] ?? 0, this.#count[at] ?? 0, this.#max[at] ?? 0)
  }

  /** Gives the whole chain back. */
  release(head: number): void {
    for (let at = head; at !== NONE; ) {
      const next = this.#next[at] ?? NONE
      this.#next[at] = this.#free
      this.#free = at
      this.#size -= 1
      at = next
    }
  }

  #grow(): void {
    const capacity = Math.min(this.#limit, 2 * this.#step.length)
    const ints = (before: Int32Array) => {
      const after = new Int32Array(capacity)
      after.set(before)
      return after
    }
    const floats = (before: Float64Array) => {
      const after = new Float64Array(capacity)
      after.set(before)
      return after
    }
    this.#step = ints(this.#step)
    this.#next = ints(this.#next)
    this.#sum = floats(this.#sum)
    this.#count = floats(this.#count)
    this.#max = floats(this.#max)
  }
}
