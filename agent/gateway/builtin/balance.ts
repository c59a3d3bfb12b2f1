/** Which endpoint gets the next request. Pure: randomness and turns are arguments. */
import type { BalanceStrategy } from '../../../shared/model/unit.ts'

export interface Candidate {
  readonly instance: string
  /** Reported load; null when none is known. */
  readonly loadPercent: number | null
  /** Requests of ours that are under way to it. */
  readonly inFlight: number
}

export interface BalanceInput {
  /** Two numbers in [0, 1). */
  readonly random: readonly [number, number]
  /** Counts up by one with each request. */
  readonly turn: number
  /** What `hash` holds on to: the caller's address. */
  readonly hashKey: string
}

/**
 * Added to the reported load before it multiplies the requests under way: how much a report may count. Reports are seconds old and
 * the requests of ours under way are not, so two endpoints that report 0 and 100 differ by a factor of five, no more. Found by trying (ADR 11).
 */
const LOAD_OFFSET_PERCENT = 25
/** Taken for an endpoint that has reported nothing yet: neither flooded as idle nor shunned as busy. */
const UNKNOWN_LOAD_PERCENT = 50

/** Index of the chosen candidate, −1 when there is none. */
export function chooseEndpoint(strategy: BalanceStrategy, candidates: readonly Candidate[], input: BalanceInput): number {
  const count = candidates.length
  if (count <= 1) return count - 1
  switch (strategy) {
    case 'least-load': {
      const first = Math.floor(input.random[0] * count)
      const second = (first + 1 + Math.floor(input.random[1] * (count - 1))) % count
      const a = candidates[first] as Candidate
      const b = candidates[second] as Candidate
      return isLighter(score(a), a, score(b), b) ? first : second
    }
    case 'least-conn':
      return indexOfBest(candidates, (a, b) => isLighter(a.inFlight, a, b.inFlight, b))
    case 'round-robin':
      return input.turn % count
    case 'hash':
      // Highest random weight: when an endpoint goes, only its own callers move.
      return indexOfBest(candidates, (a, b) => {
        const left = hashText(`${input.hashKey} ${a.instance}`)
        const right = hashText(`${input.hashKey} ${b.instance}`)
        return left > right || (left === right && a.instance < b.instance)
      })
  }
}

/** FNV-1a with a final mix, 32 bits: spreads short similar texts well enough for balancing. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index += 1) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}

function score(candidate: Candidate): number {
  return (candidate.inFlight + 1) * (LOAD_OFFSET_PERCENT + (candidate.loadPercent ?? UNKNOWN_LOAD_PERCENT))
}

function isLighter(aWeight: number, a: Candidate, bWeight: number, b: Candidate): boolean {
  return aWeight < bWeight || (aWeight === bWeight && a.instance < b.instance)
}

function indexOfBest(candidates: readonly Candidate[], isBetter: (a: Candidate, b: Candidate) => boolean): number {
  let best = 0
  for (let index = 1; index < candidates.length; index += 1)
    if (isBetter(candidates[index] as Candidate, candidates[best] as Candidate)) best = index
  return best
}
