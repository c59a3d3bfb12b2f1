import { describe, expect, it } from 'vitest'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { type ConsolidationInput, planConsolidation } from './plan-consolidation.ts'

const HOUR = 3_600_000
const CAPACITY = { cpuMillis: 1000, memoryBytes: 1000, diskBytes: 0, slots: 10 }

function node(id: string, instances: number, overrides: Partial<PlacementNode> = {}): PlacementNode {
  const free = { cpuMillis: 1000, memoryBytes: 1000 - 200 * instances, diskBytes: 0, slots: 10 - instances }
  return assumedNode(id, CAPACITY, { free, pool: 'p', ...overrides })
}

function request(id: string): PlacementRequest {
  const rules = {
    constraints: [],
    spreadOver: [],
    maxPerNode: null,
    affinity: null,
    tolerates: [],
    pools: [],
    strategy: null,
    platform: null,
    priority: 50,
  }
  return {
    id,
    service: 's/a',
    group: 's/a',
    charge: { cpuMillis: 0, memoryBytes: 200, diskBytes: 0 },
    rules,
    hostPorts: [],
    runtime: 'docker',
    images: [],
    volumes: [],
    home: null,
    near: [],
    avoid: [],
    affinityRequired: false,
    global: false,
  }
}

function plan(
  nodes: readonly PlacementNode[],
  overrides: Partial<ConsolidationInput> = {},
  pool: Partial<Pool> = {},
  nowMs = HOUR,
) {
  const machines = nodes.map(
    (each) => ({ id: `m-${each.id}`, pool: 'p', phase: 'joined', joinedAtMs: 0, requestedAtMs: 0 }) as MachineRecord,
  )
  return planConsolidation(
    {
      nodes,
      requestsOn: (id) => {
        const slots = nodes.find((each) => each.id === id)?.free.slots ?? 10
        return Array.from({ length: 10 - slots }, (_, index) => request(`s/a/${id}${index}/1`))
      },
      keepsData: new Set(),
      machineOf: (id) => machines.find((machine) => machine.id === `m-${id}`),
      machines,
      pools: [{ name: 'p', min: 0, static: false, billing: 'second', ...pool } as Pool],
      hold: null,
      overBudget: null,
      minNodeAgeMs: 600_000,
      ghosts: [],
      room: 1,
      minSavingsRatio: 0.5,
      headroomPercent: 10,
      ...overrides,
    },
    nowMs,
  )
}

const drained = (result: ReturnType<typeof plan>) => result.actions.map((action) => action.nodeId)

describe('consolidation', () => {
  it('V11: gives back the least used node whose instances all fit on the others, one at a time', () => {
    expect(drained(plan([node('a', 2), node('b', 1), node('c', 1)]))).toEqual(['b'])
  })

  it('keeps a node whose instances would leave no headroom elsewhere, and says which one does not fit', () => {
    const result = plan([node('a', 4), node('b', 1)])
    expect(drained(result)).toEqual([])
    expect(result.reasons.map((reason) => reason.code)).toEqual(['needed', 'needed'])
    expect(drained(plan([node('a', 4), node('b', 1)], { headroomPercent: 0 }))).toEqual(['b'])
  })

  it('keeps static machines, the pool’s minimum, local volumes, young nodes and paid hours', () => {
    const two = [node('a', 0), node('b', 0)]
    expect(drained(plan(two))).toEqual(['a'])
    expect(drained(plan(two, {}, { static: true }))).toEqual([])
    expect(drained(plan(two, {}, { min: 2 }))).toEqual([])
    expect(drained(plan(two.map((each) => ({ ...each, volumes: new Map([['s/v', new Set(['s/a'])]]) }))))).toEqual([])
    expect(drained(plan(two, { keepsData: new Set(two.map((each) => each.id)) }))).toEqual([])
    expect(plan(two, {}, {}, 300_000)).toMatchObject({ actions: [], wakeAtMs: 600_000 })
    expect(plan(two, {}, { billing: 'hour' }, HOUR + 1000)).toMatchObject({ actions: [], wakeAtMs: HOUR + 3_000_000 })
    expect(drained(plan(two, {}, { billing: 'hour' }, HOUR + 3_100_000))).toEqual(['a'])
  })

  it('holds when told to, except that an overrun budget gives back surplus whether it is needed or not', () => {
    const full = [node('a', 4), node('b', 4)]
    expect(drained(plan([node('a', 0), node('b', 0)], { hold: 'a rollout is under way' }))).toEqual([])
    expect(drained(plan(full, { hold: 'waiting', overBudget: 'too much' }))).toEqual(['a'])
    expect(drained(plan(full, { overBudget: 'too much' }, { min: 2 }))).toEqual([])
  })
})
