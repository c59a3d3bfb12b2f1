import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LIVENESS_RULES, type NodeSilence, planLiveness } from './plan-liveness.ts'

const node = (nodeId: string, liveness: NodeSilence['liveness'], lastSeenMs: number | null, knownSinceMs = 0): NodeSilence => ({
  nodeId,
  liveness,
  lastSeenMs,
  knownSinceMs,
})
const sets = (nodes: NodeSilence[], nowMs: number) =>
  planLiveness({ nodes, freeze: null }, nowMs).actions.flatMap((action) =>
    action.kind === 'set' ? [`${action.nodeId} ${action.to}`] : [action.kind],
  )

describe('plan liveness', () => {
  it('makes a node suspect at 15 s of silence, lost at 45 s, live when heard', () => {
    expect(sets([node('a', 'live', 0)], 14_999)).toEqual([])
    expect(sets([node('a', 'live', 0)], 15_000)).toEqual(['a suspect'])
    expect(sets([node('a', 'suspect', 0)], 44_999)).toEqual([])
    expect(sets([node('a', 'suspect', 0)], 45_000)).toEqual(['a lost'])
    expect(sets([node('a', 'lost', 50_000)], 50_001)).toEqual(['a live'])
  })

  it('row 18: a node that was never heard of stays unknown for 5 min after the start', () => {
    expect(sets([node('a', 'unknown', null)], 299_999)).toEqual([])
    expect(sets([node('a', 'unknown', null)], 300_000)).toEqual(['a lost'])
  })

  it('says when time alone can change something', () => {
    expect(planLiveness({ nodes: [node('a', 'live', 1000)], freeze: null }, 2000).wakeAtMs).toBe(16_000)
    expect(planLiveness({ nodes: [node('a', 'lost', 1000)], freeze: null }, 200_000).wakeAtMs).toBeNull()
  })

  it('does not freeze for two nodes, nor for a third of many', () => {
    expect(sets([node('a', 'live', 0), node('b', 'live', 0), node('c', 'live', 20_000)], 20_000)).not.toContain('freeze')
    const nine = Array.from({ length: 9 }, (_, index) => node(`n${index}`, 'live', index < 3 ? 0 : 20_000))
    expect(sets(nine, 20_000)).not.toContain('freeze')
    expect(sets([...nine.slice(0, 3), ...nine.slice(4)], 20_000)).toContain('freeze')
  })

  it('ends a freeze after 10 min, and does not begin it anew for the same silence', () => {
    const nodes = ['a', 'b', 'c', 'd'].map((id) => node(id, 'suspect', 0))
    const freeze = { cause: 'silence' as const, reason: 'r', sinceMs: 15_000, untilMs: 615_000 }
    expect(planLiveness({ nodes, freeze }, 600_000).actions).toEqual([])
    expect(planLiveness({ nodes, freeze }, 615_000).actions.map((action) => action.kind)).toEqual([
      'thaw',
      'set',
      'set',
      'set',
      'set',
    ])
    expect(planLiveness({ nodes, freeze: null }, 616_000).actions.every((action) => action.kind === 'set')).toBe(true)
  })

  it('property: nobody is lost before 45 s of silence, and nobody at all while frozen', () => {
    const silence = fc.record({
      nodeId: fc.string({ minLength: 1 }),
      liveness: fc.constantFrom('unknown' as const, 'live' as const, 'suspect' as const),
      lastSeenMs: fc.option(fc.integer({ min: 0, max: 700_000 })),
      knownSinceMs: fc.integer({ min: 0, max: 700_000 }),
    })
    fc.assert(
      fc.property(fc.array(silence, { maxLength: 12 }), fc.integer({ min: 700_000, max: 1_000_000 }), (nodes, nowMs) => {
        const plan = planLiveness({ nodes, freeze: null }, nowMs)
        const frozen = plan.actions.some((action) => action.kind === 'freeze')
        for (const action of plan.actions) {
          if (action.kind !== 'set' || action.to !== 'lost') continue
          expect(frozen).toBe(false)
          if (action.silentMs !== null) expect(action.silentMs).toBeGreaterThanOrEqual(LIVENESS_RULES.lostAfterMs)
        }
      }),
    )
  })
})
