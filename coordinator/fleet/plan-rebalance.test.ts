import { describe, expect, it } from 'vitest'
import { aRequest } from '../../test/builders/requests.ts'
import { DEFAULT_WEIGHTS, type PlacementNode, type PlacementRequest } from '../placement/model.ts'
import { assumedNode } from '../placement/plan-offline.ts'
import { planRebalance, type RebalanceInput } from './plan-rebalance.ts'

const NOW = 10_000_000
const CAPACITY = { cpuMillis: 10_000, memoryBytes: 10_000, diskBytes: 0, slots: 50 }

function node(id: string, usedPercent: number, overrides: Partial<PlacementNode> = {}): PlacementNode {
  const left = 100 - usedPercent
  const free = { cpuMillis: left * 100, memoryBytes: left * 100, diskBytes: 0, slots: 50 }
  return { ...assumedNode(id, CAPACITY), free, ...overrides }
}

function request(id: string, percent: number, overrides: Partial<PlacementRequest> = {}): PlacementRequest {
  const charge = { cpuMillis: percent * 100, memoryBytes: percent * 100, diskBytes: 0 }
  return aRequest(id, { service: 's/a', group: 's/a', charge, runtime: 'process', ...overrides })
}

function plan(overrides: Partial<RebalanceInput>) {
  return planRebalance(
    {
      nodes: [node('n-1', 90), node('n-2', 80), node('n-3', 0)],
      joinedAtMsOf: (id) => (id === 'n-3' ? NOW - 60_000 : 0),
      movableOn: (id) => (id === 'n-3' ? [] : [request(`s/a/${id.slice(2)}/1`, 20), request(`s/a/${id.slice(2)}0/1`, 10)]),
      hold: () => null,
      movedAtMs: [],
      weights: DEFAULT_WEIGHTS,
      config: { rebalanceMovesPerHour: 2, rebalanceImbalancePercent: 40 },
      ...overrides,
    },
    NOW,
  )
}

describe('rebalancing', () => {
  it('moves the largest that helps from the fullest node onto the one that joined, one at a time', () => {
    expect(plan({}).actions).toEqual([expect.objectContaining({ kind: 'move', instance: 's/a/1/1', from: 'n-1', to: 'n-3' })])
  })

  it('leaves small imbalances, old nodes and a fleet that is busy alone', () => {
    expect(plan({ nodes: [node('n-1', 39), node('n-3', 0)] }).actions).toEqual([])
    expect(plan({ joinedAtMsOf: () => 0 }).actions).toEqual([])
    const held = plan({ hold: () => 'shop/web is being updated' })
    expect(held.actions).toEqual([])
    expect(held.reasons[0]?.text).toBe('shop/web is being updated')
    expect(plan({ config: { rebalanceMovesPerHour: 0, rebalanceImbalancePercent: 40 } }).actions).toEqual([])
  })

  it('keeps to the hour’s budget of moves and says when it goes on', () => {
    const spent = plan({ movedAtMs: [NOW - 3_000_000, NOW - 100_000] })
    expect(spent.actions).toEqual([])
    expect(spent.reasons[0]?.code).toBe('rebalance-budget')
    expect(spent.wakeAtMs).toBe(NOW + 600_000)
    expect(plan({ movedAtMs: [NOW - 3_600_001, NOW - 100_000] }).actions).toHaveLength(1)
  })

  it('never moves past the middle, nor against a filter of placement', () => {
    expect(plan({ nodes: [node('n-1', 60), node('n-3', 0)], movableOn: () => [request('s/a/1/1', 50)] }).actions).toEqual([])
    const tainted = [node('n-1', 90), node('n-3', 0, { taints: ['gpu'] })]
    expect(plan({ nodes: tainted }).actions).toEqual([])
    expect(plan({ nodes: tainted }).reasons[0]?.code).toBe('rebalance-none')
  })

  it('undoes no spreading over zones, no distance between instances of a service, and no nearness', () => {
    const there = (id: string, used: number, zone: string, services: readonly string[]) =>
      node(id, used, { zone, services: new Map(services.map((service) => [service, 1])) })
    const spread = request('s/a/1/1', 20, { rules: { ...request('s/a/1/1', 20).rules, spreadOver: ['node.zone'] } })
    const movableOn = (moving: PlacementRequest) => (id: string) => (id === 'n-1' ? [moving] : [])
    // One instance in each zone; the empty node joins in the second.
    const zones = (zone: string) => [there('n-1', 90, 'za', ['s/a']), there('n-2', 30, 'zb', ['s/a']), there('n-3', 0, zone, [])]
    expect(plan({ nodes: zones('zb'), movableOn: movableOn(spread) }).actions).toEqual([])
    expect(plan({ nodes: zones('za'), movableOn: movableOn(spread) }).actions).toHaveLength(1)
    expect(plan({ nodes: zones('zb'), movableOn: movableOn(request('s/a/1/1', 20)) }).actions).toHaveLength(1)

    const siblings = [there('n-1', 90, 'za', ['s/a']), there('n-3', 10, 'za', ['s/a'])]
    expect(plan({ nodes: siblings, movableOn: movableOn(request('s/a/1/1', 20)) }).actions).toEqual([])
    const beside = request('s/a/1/1', 20, { near: ['s/db'] })
    const neighbours = [there('n-1', 90, 'za', ['s/a', 's/db']), there('n-3', 0, 'za', [])]
    expect(plan({ nodes: neighbours, movableOn: movableOn(beside) }).actions).toEqual([])
    const unwanted = [there('n-1', 90, 'za', ['s/a']), there('n-3', 10, 'za', ['s/loud'])]
    expect(plan({ nodes: unwanted, movableOn: movableOn(request('s/a/1/1', 20, { avoid: ['s/loud'] })) }).actions).toEqual([])
  })

  it('asks what holds only when there is something to even out', () => {
    const held: string[] = []
    const hold = () => {
      held.push('asked')
      return null
    }
    plan({ hold, joinedAtMsOf: () => 0 })
    plan({ hold, nodes: [node('n-1', 39), node('n-3', 0)] })
    expect(held).toEqual([])
    plan({ hold })
    expect(held).toEqual(['asked'])
  })

  it('gives everybody a turn: in a large cluster a pass asks few nodes, and who can give something is found all the same', () => {
    const nodes = Array.from({ length: 3_000 }, (_, index) =>
      node(`n-${String(index).padStart(4, '0')}`, 90, { services: new Map([['s/a', 10]]) }),
    )
    // Of equally full ones the highest id comes first.
    const last = 'n-0000'
    let asked = 0
    const movableOn = (id: string) => {
      asked += 1
      return id === last ? [request('s/a/1/1', 20)] : []
    }
    let tried: ReadonlySet<string> = new Set()
    for (let pass = 0; pass < 10; pass += 1) {
      asked = 0
      const result = plan({
        nodes: [...nodes, node('n-new', 0)],
        joinedAtMsOf: (id) => (id === 'n-new' ? NOW - 60_000 : 0),
        movableOn,
        tried,
      })
      expect(asked).toBeLessThan(1_200)
      tried = result.tried
      if (result.actions.length > 0) {
        expect(result.actions[0]?.from).toBe(last)
        expect(pass).toBeGreaterThan(0)
        return
      }
      // Soon again, until all had their turn.
      expect(result.wakeAtMs).toBe(NOW + 1_000)
      expect(result.reasons[0]?.code).toBe('rebalance-turns')
    }
    throw new Error('who could give something had no turn')
  })

  it('liveness: repeated until nothing more is worth moving, it ends within the imbalance', () => {
    const use = new Map([
      ['n-1', [20, 20, 20, 20]],
      ['n-2', [15, 15, 15, 15, 15]],
      ['n-3', [] as number[]],
    ])
    for (let step = 0; step < 50; step += 1) {
      const sum = (id: string) => (use.get(id) ?? []).reduce((total, each) => total + each, 0)
      const { actions } = plan({
        nodes: [...use.keys()].map((id) => node(id, sum(id))),
        movableOn: (id) => (use.get(id) ?? []).map((percent, index) => request(`s/${id}/${index + 1}/1`, percent)),
      })
      const [action] = actions
      if (!action) {
        expect(step).toBeLessThan(6)
        expect(Math.max(...[...use.keys()].map(sum)) - sum('n-3')).toBeLessThan(40)
        return
      }
      const from = use.get(action.from) ?? []
      use.get(action.to)?.push(...from.splice(Number(action.instance.split('/')[2]) - 1, 1))
    }
    throw new Error('it moves for ever')
  })
})
