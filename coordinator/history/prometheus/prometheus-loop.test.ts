import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../../shared/logger.ts'
import { memoryStore } from '../../../test/fakes/memory-store.ts'
import { virtualClock } from '../../../test/fakes/virtual-clock.ts'
import { openState } from '../../state/state.ts'
import { createPrometheusLoop } from './prometheus-loop.ts'
import type { PrometheusStatus } from './prometheus-past.ts'

async function bed() {
  const clock = virtualClock()
  const store = memoryStore()
  const state = await openState(store, clock)
  const told: string[] = []
  state.onChange(({ events }) => {
    for (const { type, message } of events) if (type.startsWith('history.')) told.push(`${type}: ${message}`)
  })
  let status: PrometheusStatus = { fault: null, isAway: false, failures: 0, clockAheadMs: 0 }
  /** What the next probes find. */
  let found = status
  let probes = 0
  const listeners: (() => void)[] = []
  const loop = createPrometheusLoop({
    past: {
      async probe() {
        probes += 1
        status = found
      },
      status: () => status,
      onAway: (listener) => void listeners.push(listener),
    },
    state,
    clock,
    logger: silentLogger(),
  })
  loop.start()
  return {
    clock,
    store,
    told,
    loop,
    probes: () => probes,
    becomes(fault: string | null, isAway = fault !== null) {
      found = { ...status, fault, isAway }
    },
    queryFails(fault: string) {
      status = { ...status, fault, isAway: true }
      for (const listener of listeners) listener()
    },
  }
}

describe('the loop that looks after Prometheus', () => {
  it('says once in the audit trail that it is away, and once that it is back, and looks more often meanwhile', async () => {
    const { clock, told, loop, becomes, probes } = await bed()
    await clock.advance(60_000)
    expect(told).toEqual([])
    becomes('it cannot be reached: ECONNREFUSED')
    await clock.advance(60_000)
    expect(told).toEqual([
      'history.prometheus-fault: Prometheus: it cannot be reached: ECONNREFUSED. What this coordinator recorded itself answers meanwhile',
    ])
    const before = probes()
    becomes(null)
    await clock.advance(5_000)
    expect(told.slice(1)).toEqual(['history.prometheus-back: Prometheus answers for the past again'])
    expect(probes()).toBe(before + 1)
    await loop.stop()
  })

  it('tells at once what a query met, even if it has passed by the next look', async () => {
    const { clock, told, loop, queryFails } = await bed()
    await clock.advance(1_000)
    queryFails('it did not answer within 10 s')
    await clock.advance(10)
    expect(told.map((each) => each.split(':', 1)[0])).toEqual(['history.prometheus-fault', 'history.prometheus-back'])
    await loop.stop()
  })

  it('a fault that cannot be told yet is told later', async () => {
    const { clock, store, told, loop, becomes } = await bed()
    store.failNext({ kind: 'unavailable', detail: 'disk full' }, 4)
    becomes('it has no figures of this cluster of the last minutes', false)
    await clock.advance(15_000)
    expect(told).toEqual([])
    await clock.advance(60_000)
    expect(told).toHaveLength(1)
    expect(told[0]).not.toContain('meanwhile')
    await loop.stop()
  })
})
