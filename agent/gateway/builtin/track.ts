import { LATENCY_BUCKETS_MS } from '../../../shared/model/observation.ts'

/** Counters of one destination (an instance's ingress, or an endpoint as the egress sees it). */
export interface Track {
  inFlight: number
  requests: number
  errors: number
  denied: number
  rxBytes: number
  txBytes: number
  /** Answers by the time they took, as `InstanceUse.latency`; null where nobody asks. */
  readonly latency: number[] | null
  /** Connections that could not be made since somebody looked. */
  connectFailures: number
  /** Called when the last exchange under way has ended. */
  onIdle: (() => void) | null
}

/** Without answer times unless `timed`. */
export function newTrack(timed = false): Track {
  return {
    inFlight: 0,
    requests: 0,
    errors: 0,
    denied: 0,
    rxBytes: 0,
    txBytes: 0,
    latency: timed ? new Array<number>(LATENCY_BUCKETS_MS.length + 1).fill(0) : null,
    connectFailures: 0,
    onIdle: null,
  }
}

/** Counts one answer that took so long: one comparison per bucket passed, one increment. */
export function countAnswer(tracks: readonly Track[], tookMs: number): void {
  let bucket = 0
  while (bucket < LATENCY_BUCKETS_MS.length && tookMs > (LATENCY_BUCKETS_MS[bucket] ?? 0)) bucket += 1
  for (const { latency } of tracks) if (latency !== null) latency[bucket] = (latency[bucket] ?? 0) + 1
}

/** The answer times since they were last taken; null when there were none. Resets them. */
export function takeAnswers(track: Track): readonly number[] | null {
  const { latency } = track
  if (latency === null || latency.every((count) => count === 0)) return null
  const taken = [...latency]
  latency.fill(0)
  return taken
}

/** Ends one exchange. */
export function endTrack(track: Track): void {
  track.inFlight -= 1
  if (track.inFlight === 0) track.onIdle?.()
}
