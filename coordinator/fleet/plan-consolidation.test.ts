import { describe, expect, it } from 'vitest'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { aRequest } from '../../test/builders/requests.ts'
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
  return aRequest(id, { service: 's/a', charge: { cpuMillis: 0, memoryBytes: 200, diskBytes: 0 } })
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
  const machineById = new Map(machines.map((machine) => [machine.id, machine]))
  return planConsolidation(
    {
      nodes,
      requestsOn: (id) => {
        const slots = nodes.find((each) => each.id === id)?.free.slots ?? 10
        return Array.from({ length: 10 - slots }, (_, index) => request(`s/a/${id}${index}/1`))
      },
      keepsData: new Set(),
      machineOf: (id) => machineById.get(`m-${id}`),
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

  it('keeps a node that something stands against, budget or not, and gives back another', () => {
    const heldOf = ({ id }: PlacementNode) => (id === 'a' ? 's/a is being updated' : null)
    const result = plan([node('a', 1), node('b', 1), node('c', 1)], { heldOf })
    expect(drained(result)).toEqual(['b'])
    expect(result.reasons[0]).toEqual({ subject: 'a', code: 'held', text: 's/a is being updated' })
    expect(drained(plan([node('a', 4), node('b', 4)], { heldOf, overBudget: 'too much' }))).toEqual(['b'])
  })

  it('gives nothing back whose price is not worth the moves', () => {
    const nodes = [node('dear', 4), node('tiny', 3)]
    const machines = nodes.map(
      ({ id }) =>
        ({
          id: `m-${id}`,
          pool: 'p',
          phase: 'joined',
          joinedAtMs: 0,
          requestedAtMs: 0,
          priceUsdPerHour: id === 'tiny' ? 0.01 : 1,
        }) as MachineRecord,
    )
    const counted = nodes.map((each) => ({ ...each, services: new Map([['s/a', each.id === 'tiny' ? 3 : 4]]) }))
    const input = {
      machines,
      machineOf: (id: string) => machines.find((machine) => machine.id === `m-${id}`),
      headroomPercent: -100, // room enough: only the price is asked about
    }
    const result = plan(counted, input)
    expect(drained(result)).toEqual(['dear'])
    expect(result.reasons[0]).toEqual({
      subject: 'tiny',
      code: 'not-worth-it',
      text: '1 % of the price for 43 % of the instances',
    })
    expect(drained(plan(counted, { ...input, minSavingsRatio: 0 }))).toEqual(['tiny'])
  })

  it('keeps room for what is expected, unless that does not fit now either', () => {
    const two = [node('a', 1), node('b', 1)]
    expect(drained(plan(two))).toEqual(['a'])
    const ghosts = (count: number) => Array.from({ length: count }, (_, index) => ({ ...request(`~${index}`), group: '~' }))
    const kept = plan(two, { ghosts: ghosts(4) })
    expect(drained(kept)).toEqual([])
    expect(kept.reasons[0]?.code).toBe('kept-free')
    const huge = ghosts(1).map((ghost) => ({ ...ghost, charge: { ...ghost.charge, memoryBytes: 5000 } }))
    expect(drained(plan(two, { ghosts: huge }))).toEqual(['a'])
  })

  it('gives several back at a time where that is allowed, each as if those before it had gone', () => {
    const four = [node('a', 1), node('b', 1), node('c', 1), node('d', 1)]
    expect(drained(plan(four, { room: 4 }))).toEqual(['a', 'b', 'c'])
    expect(drained(plan(four, { room: 2 }))).toEqual(['a', 'b'])
    const full = [node('a', 2), node('b', 2), node('c', 2)]
    expect(drained(plan(full, { room: 3 }))).toEqual(['a'])
    expect(drained(plan(four, { room: 4 }, { min: 3 }))).toEqual(['a'])
  })

  it('gives everybody a turn: what is stuck on the least used nodes does not hide the next one for ever', () => {
    const ids = Array.from({ length: 60 }, (_, index) => `n-${String(index).padStart(2, '0')}`)
    // All but the last, the fullest of them, hold an instance that may be nowhere else.
    const nodes = ids.map((id) => node(id, id === 'n-59' ? 2 : 1))
    const pinned = (id: string) => ({
      ...request(`s/${id}/1/1`),
      group: id,
      rules: { ...request('s/a/1/1').rules, constraints: [{ attribute: 'node.id', operator: '==' as const, value: id }] },
    })
    const requestsOn = (id: string) => (id === 'n-59' ? [request('s/a/1/1')] : [pinned(id)])
    let tried: ReadonlySet<string> = new Set()
    const given: string[][] = []
    for (let pass = 0; pass < 12; pass += 1) {
      const result = plan(nodes, { requestsOn, tried, headroomPercent: 0 })
      expect(result.reasons.length).toBeLessThanOrEqual(20)
      tried = result.tried
      given.push(drained(result))
    }
    expect(given.flat()).toContain('n-59')
    expect(given[0]).toEqual([])
  })

  it('tries as few nodes in a large cluster as a short pass has time for, and refuses what sums and sizes refuse without trying', () => {
    let asked = 0
    const nodes = Array.from({ length: 3_000 }, (_, index) => node(`n-${index}`, 4))
    const requestsOn = (id: string) => {
      asked += 1
      return [{ ...request(`s/a/${id}/1`), charge: { cpuMillis: 900, memoryBytes: 150, diskBytes: 0 } }]
    }
    const fits = plan(nodes, { requestsOn, headroomPercent: 0, room: 100 })
    expect(drained(fits).length).toBeLessThanOrEqual(2)
    expect(drained(fits)).toHaveLength(asked)
    asked = 0
    const full = plan(nodes, { requestsOn, headroomPercent: 10 })
    expect(drained(full)).toEqual([])
    expect(asked).toBe(3_000)
    expect(new Set(full.reasons.map(({ code }) => code))).toEqual(new Set(['needed']))
  })
})
