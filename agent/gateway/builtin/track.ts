/** Counters of one destination (an instance's ingress, or an endpoint as the egress sees it). */
export interface Track {
  inFlight: number
  requests: number
  errors: number
  denied: number
  rxBytes: number
  txBytes: number
  /** Connections that could not be made since somebody looked. */
  connectFailures: number
  /** Called when the last exchange under way has ended. */
  onIdle: (() => void) | null
}

export function newTrack(): Track {
  return { inFlight: 0, requests: 0, errors: 0, denied: 0, rxBytes: 0, txBytes: 0, connectFailures: 0, onIdle: null }
}

/** Ends one exchange. */
export function endTrack(track: Track): void {
  track.inFlight -= 1
  if (track.inFlight === 0) track.onIdle?.()
}
