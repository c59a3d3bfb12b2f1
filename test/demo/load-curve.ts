/** How many callers there are when: traffic that rises, holds until enough was answered, and falls. */

/** Traffic over time: at `atS` seconds after the start of traffic, so many callers. Between them it moves linearly. */
const LOAD: readonly { readonly atS: number; readonly callers: number; readonly stage: string }[] = [
  { atS: 0, callers: 2, stage: 'calm' },
  { atS: 6, callers: 2, stage: 'rising' },
  { atS: 30, callers: 36, stage: 'high' },
  { atS: 60, callers: 36, stage: 'falling' },
  { atS: 70, callers: 1, stage: 'low' },
]
/** The high stage lasts until so many requests were answered (a slow host needs longer), at most so much longer. */
const WANTED_REQUESTS = 20_000
const HIGH_AT_MOST_S = 120
const HOLD = { fromS: 30, untilS: 60 }
export const END_OF_CURVE_S = LOAD.at(-1)?.atS ?? 0

export interface LoadCurve {
  /** What to do `sinceStartS` after the start, when so many were answered. `elapsedS` is the place on the curve: it stands still while the high stage is held. */
  at(sinceStartS: number, answered: number): { readonly elapsedS: number; readonly callers: number; readonly stage: string }
}

export function createLoadCurve(): LoadCurve {
  let heldUntilS = HOLD.untilS
  return {
    at(sinceStartS, answered) {
      const holding = sinceStartS >= HOLD.fromS && answered < WANTED_REQUESTS && sinceStartS < HOLD.untilS + HIGH_AT_MOST_S
      if (holding) heldUntilS = Math.max(HOLD.untilS, sinceStartS)
      const elapsedS =
        sinceStartS < HOLD.untilS ? sinceStartS : holding ? HOLD.untilS - 0.1 : HOLD.untilS + sinceStartS - heldUntilS
      return { elapsedS, ...loadAt(elapsedS) }
    },
  }
}

function loadAt(elapsedS: number): { callers: number; stage: string } {
  let current = LOAD[0] ?? { atS: 0, callers: 1, stage: '' }
  for (const next of LOAD) {
    if (next.atS > elapsedS) {
      const share = (elapsedS - current.atS) / (next.atS - current.atS)
      return { callers: Math.round(current.callers + (next.callers - current.callers) * share), stage: current.stage }
    }
    current = next
  }
  return { callers: current.callers, stage: current.stage }
}
