import { describe, expect, it } from 'vitest'
import { scalingMetrics } from './scaling-metrics.ts'

describe('scalingMetrics', () => {
  it('V16: says how an objective is kept, and leaves out what is not known', () => {
    const objective = { objectiveMs: 200, p95Ms: 150, kept: true, shareOfTime: 0.9, shareOfRequests: 0.97, shiftPercent: -5 }
    const text = scalingMetrics([
      {
        service: 'shop/web',
        directionChangesPerHour: 2,
        thresholdPercent: 65,
        parts: { idlePercent: 20, requestMs: 5 },
        objective,
      },
      { service: 'shop/api', directionChangesPerHour: 0, thresholdPercent: null, parts: null, objective: null },
    ])
    expect(text).toContain('rubato_service_objective_kept_requests_ratio{app="shop",service="web"} 0.97\n')
    expect(text).toContain('rubato_service_latency_p95_seconds{app="shop",service="web"} 0.15\n')
    expect(text).toContain('rubato_service_direction_changes_per_hour{app="shop",service="api"} 0\n')
    expect(text).toContain('rubato_service_idle_percent{app="shop",service="web"} 20\n')
    expect(text).toContain('rubato_service_request_cost_seconds{app="shop",service="web"} 0.005\n')
    expect(text).not.toContain('objective_seconds{app="shop",service="api"}')
    expect(scalingMetrics([])).toBe('')
  })
})
