/** Learned time from placement to readiness of one service's instances: tells a slow start from one that does not come. */
export interface StartTimes {
  add(ms: number): void
  /** 90th percentile in ms; null until three were seen. */
  p90Ms(): number | null
}

const KEPT = 32

export function createStartTimes(): StartTimes {
  let times: number[] = []
  return {
    add(ms) {
      times = [...times, ms].slice(-KEPT)
    },
    p90Ms() {
      if (times.length < 3) return null
      const sorted = [...times].sort((a, b) => a - b)
      return sorted[Math.min(sorted.length - 1, Math.floor(0.9 * sorted.length))] ?? null
    },
  }
}
