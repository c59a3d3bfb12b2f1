import { describe, expect, it } from 'vitest'
import { aMachineRecord } from '../../test/builders/records.ts'
import { type HoldsInput, planHolds } from './plan-holds.ts'

const NOW = 10_000_000

function holds(overrides: Partial<HoldsInput> = {}) {
  return planHolds(
    {
      nodes: nodes(20, 0),
      services: [{ id: 's/a', isUpdating: false, waiting: 0 }],
      machines: [],
      reclaimedAtMs: new Map(),
      downIntervalMs: 60_000,
      ...overrides,
    },
    NOW,
  )
}

function nodes(count: number, silent: number) {
  return Array.from({ length: count }, (_, index) => ({ id: `n-${index}`, isSilent: index < silent }))
}

describe('what stands against giving back', () => {
  it('one silent node of many holds only itself; many at once are more likely our own fault, and hold all', () => {
    expect(holds({ nodes: nodes(20, 1) })).toMatchObject({ silent: ['n-0'], manySilent: null })
    expect(holds({ nodes: nodes(3, 1) }).manySilent).toBeNull()
    expect(holds({ nodes: nodes(3, 2) }).manySilent).toBe('2 nodes have not reported')
    expect(holds({ nodes: nodes(5_000, 499) }).manySilent).toBeNull()
    expect(holds({ nodes: nodes(5_000, 500) }).manySilent).toBe('500 nodes have not reported')
  })

  it('a rollout and waiting instances hold their own service only, until so many wait that room cannot be kept for each', () => {
    const of = (waiting: number) => ({
      services: [
        { id: 's/a', isUpdating: true, waiting: 0 },
        { id: 's/b', isUpdating: false, waiting },
        { id: 's/c', isUpdating: false, waiting: 0 },
      ],
    })
    expect([...holds(of(2)).services]).toEqual([
      ['s/a', 's/a is being updated'],
      ['s/b', 's/b has instances waiting'],
    ])
    expect(holds(of(2)).manyWaiting).toBeNull()
    expect(holds(of(201)).manyWaiting).toBe('201 instances wait for room')
  })

  it('a machine on its way or bought a moment ago, and a node taken back, hold their own pool only', () => {
    const machine = (pool: string, phase: 'booting' | 'joined' | 'gone', requestedAtMs: number) =>
      aMachineRecord({ id: `m-${pool}`, pool, phase, requestedAtMs })
    const machines = [
      machine('coming', 'booting', 0),
      machine('fresh', 'joined', NOW - 59_000),
      machine('old', 'joined', NOW - 61_000),
      machine('ended', 'gone', NOW),
    ]
    const reclaimedAtMs = new Map([
      ['back', NOW - 1_000],
      ['long-back', NOW - 60_000],
    ])
    expect([...holds({ machines, reclaimedAtMs }).pools.keys()].sort()).toEqual(['back', 'coming', 'fresh'])
  })
})
