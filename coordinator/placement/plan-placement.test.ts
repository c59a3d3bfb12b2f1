import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PlacementRules } from '../../shared/model/app.ts'
import { requestsOf } from '../../test/builders/requests.ts'
import { renderExplanation } from './explain.ts'
import { attributeOf, constraintHolds } from './filters.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'
import { assumedNode } from './plan-offline.ts'
import { planPlacement } from './plan-placement.ts'

const MiB = 2 ** 20
const CAPACITY = { cpuMillis: 4000, memoryBytes: 4096 * MiB, diskBytes: 10 ** 12, slots: 100 }

function node(id: string, overrides: Partial<PlacementNode> = {}): PlacementNode {
  return assumedNode(id, CAPACITY, overrides)
}

/** node id → instances placed there. */
function counts(plan: ReturnType<typeof planPlacement>): Record<string, number> {
  const result: Record<string, number> = {}
  for (const { node: id } of plan.assignments) result[id] = (result[id] ?? 0) + 1
  return result
}

function explained(plan: ReturnType<typeof planPlacement>): string {
  const refusal = plan.refusals[0]
  return refusal ? renderExplanation(refusal.explanation) : ''
}

describe('placement', () => {
  it('V3: spreads over the least used nodes by default', () => {
    const plan = planPlacement({ requests: requestsOf('shop/web', 6), nodes: [node('a'), node('b'), node('c')] })
    expect(counts(plan)).toEqual({ a: 2, b: 2, c: 2 })
  })

  it('V3: one instance goes to the node with the least reserved', () => {
    const used = { ...CAPACITY, memoryBytes: 1024 * MiB }
    const plan = planPlacement({ requests: requestsOf('shop/web', 1), nodes: [node('a', { free: used }), node('b')] })
    expect(counts(plan)).toEqual({ b: 1 })
  })

  it('B5: binpack fills one node before it takes the next', () => {
    const plan = planPlacement({
      requests: requestsOf('shop/web', 33, {}, { strategy: 'binpack' }),
      nodes: [node('a'), node('b'), node('c')],
    })
    expect(Object.values(counts(plan)).sort()).toEqual([1, 32])
  })

  it('B5: random is reproducible and uses several nodes', () => {
    const input = { requests: requestsOf('shop/web', 40, {}, { strategy: 'random' }), nodes: [node('a'), node('b'), node('c')] }
    expect(planPlacement(input)).toEqual(planPlacement(input))
    expect(Object.keys(counts(planPlacement(input))).length).toBeGreaterThan(1)
  })

  it('explains a refusal by the count of nodes that each filter turned away', () => {
    const full = { ...CAPACITY, memoryBytes: MiB }
    const nodes = [
      ...['a', 'b', 'c'].map((id) => node(id, { free: full, labels: { disk: 'ssd' } })),
      ...['d', 'e'].map((id) => node(id, { taints: ['gpu'], labels: { disk: 'ssd' } })),
      ...['f', 'g'].map((id) => node(id)),
    ]
    const rules = { constraints: [{ attribute: 'node.labels.disk', operator: '==', value: 'ssd' }] } as const
    expect(explained(planPlacement({ requests: requestsOf('shop/web', 1, {}, rules), nodes }))).toBe(
      '0 of 7 nodes: 3 memory, 2 constraint node.labels.disk==ssd, 2 taint gpu',
    )
    expect(explained(planPlacement({ requests: requestsOf('shop/web', 1), nodes: [] }))).toBe('0 of 0 nodes: no node has joined')
  })

  it.each([
    ['closed', { closed: 'cordoned' }, {}, {}, 'cordoned'],
    ['runtime', { runtimes: ['process'] }, {}, {}, 'without runtime docker'],
    ['pool', { pool: 'a' }, {}, { pools: ['x', 'y'] }, 'pool x|y'],
    ['platform', { platform: 'linux/aarch64' }, {}, { platform: 'linux/amd64' }, 'platform linux/amd64'],
    ['taint', { taints: ['gpu'] }, {}, {}, 'taint gpu'],
    ['slots', { free: { ...CAPACITY, slots: 0 } }, {}, {}, 'slots'],
    ['cpu', { free: { ...CAPACITY, cpuMillis: 99 } }, {}, {}, 'cpu'],
    ['host port', { hostPorts: new Set(['80/tcp']) }, { hostPorts: ['80/tcp'] }, {}, 'host port 80/tcp'],
    ['max per node', { services: new Map([['shop/web', 2]]) }, {}, { maxPerNode: 2 }, 'max 2 per node'],
    [
      'anti-affinity',
      { services: new Map([['shop/db', 1]]) },
      { avoid: ['shop/db'], affinityRequired: true },
      {},
      'anti-affinity shop/db',
    ],
    ['affinity', {}, { near: ['shop/db'], affinityRequired: true }, {}, 'affinity shop/db'],
    ['a neighbour', { repels: new Set(['shop/web']) }, {}, {}, 'anti-affinity of a neighbour'],
    ['volume', {}, { volumes: ['shop/data'], home: 'z' }, {}, 'volume on z'],
  ] as [string, Partial<PlacementNode>, Partial<PlacementRequest>, Partial<PlacementRules>, string][])(
    'V4: %s turns a request away, and says so',
    (_name, onNode, onRequest, rules, label) => {
      const plan = planPlacement({ requests: requestsOf('shop/web', 1, onRequest, rules), nodes: [node('n', onNode)] })
      expect(explained(plan)).toBe(`0 of 1 node: 1 ${label}`)
    },
  )

  it('tolerated taints, matching platforms and held affinities let a request in', () => {
    const onNode = { taints: ['gpu'], platform: 'linux/arm64', services: new Map([['shop/db', 1]]) }
    const wants = { near: ['shop/db'], affinityRequired: true }
    const rules = { tolerates: ['gpu'], platform: 'linux/arm64/v8' }
    expect(
      planPlacement({ requests: requestsOf('shop/web', 1, wants, rules), nodes: [node('n', onNode)] }).assignments,
    ).toHaveLength(1)
  })

  it('assignments of one plan count at once: host ports, limits per node, anti-affinity in both directions', () => {
    const nodes = [node('a'), node('b')]
    expect(counts(planPlacement({ requests: requestsOf('s/p', 3, { hostPorts: ['80/tcp'] }), nodes }))).toEqual({ a: 1, b: 1 })
    expect(counts(planPlacement({ requests: requestsOf('s/m', 9, {}, { maxPerNode: 2 }), nodes }))).toEqual({ a: 2, b: 2 })
    const both = [...requestsOf('s/x', 1, { avoid: ['s/y'], affinityRequired: true }), ...requestsOf('s/y', 2)]
    const plan = planPlacement({ requests: both, nodes })
    const of = (service: string) => plan.assignments.filter((each) => each.request.service === service).map((each) => each.node)
    expect(of('s/y').some((id) => of('s/x').includes(id))).toBe(false)
  })

  it('a service that must be near itself starts somewhere and stays there', () => {
    const plan = planPlacement({
      requests: requestsOf('s/x', 3, { near: ['s/x'], affinityRequired: true }),
      nodes: [node('a'), node('b')],
    })
    expect(Object.values(counts(plan))).toEqual([3])
  })

  it('who wants to be near another service of the same batch is placed after it', () => {
    const requests = [...requestsOf('s/a', 1, { near: ['s/z'], affinityRequired: true }), ...requestsOf('s/z', 1)]
    const plan = planPlacement({ requests, nodes: [node('a'), node('b')] })
    expect(new Set(plan.assignments.map((each) => each.node)).size).toBe(1)
    expect(plan.refusals).toEqual([])
  })

  it('services that share a local volume share a node', () => {
    const requests = [...requestsOf('s/db', 1, { volumes: ['s/data'] }), ...requestsOf('s/backup', 1, { volumes: ['s/data'] })]
    const plan = planPlacement({ requests, nodes: [node('a'), node('b'), node('c')] })
    expect(new Set(plan.assignments.map((each) => each.node)).size).toBe(1)
  })

  it('spreads over zones first, then within them', () => {
    const nodes = [...['a', 'b', 'c', 'd'].map((id) => node(id, { zone: 'z1' })), node('e', { zone: 'z2' })]
    const plan = planPlacement({ requests: requestsOf('shop/web', 6, {}, { spreadOver: ['node.zone'] }), nodes })
    expect(counts(plan).e).toBe(3)
  })

  it('preferred neighbours and measured use decide between equals', () => {
    const nodes = [node('a'), node('b', { services: new Map([['s/db', 1]]) })]
    expect(counts(planPlacement({ requests: requestsOf('s/w', 1, { near: ['s/db'] }), nodes }))).toEqual({ b: 1 })
    expect(counts(planPlacement({ requests: requestsOf('s/w', 1, { avoid: ['s/db'] }), nodes }))).toEqual({ a: 1 })
    const busy = [node('a', { measuredUse: 0.9 }), node('b', { measuredUse: 0.1 })]
    expect(counts(planPlacement({ requests: requestsOf('s/w', 1), nodes: busy }))).toEqual({ b: 1 })
  })

  it('node.role is worker everywhere; what asks for a manager is refused', () => {
    const constraint = (operator: '==' | '!=', value: string) => ({ attribute: 'node.role', operator, value })
    expect(constraintHolds(constraint('==', 'worker'), node('n'))).toBe(true)
    expect(constraintHolds(constraint('==', 'manager'), node('n'))).toBe(false)
    expect(constraintHolds(constraint('!=', 'manager'), node('n'))).toBe(true)
    expect(attributeOf(node('n'), 'node.labels.__proto__')).toBeUndefined()
  })

  it('important services are placed before others when there is not room for all', () => {
    const small = [node('a', { free: { ...CAPACITY, slots: 2 } })]
    const plan = planPlacement({
      requests: [...requestsOf('s/low', 2), ...requestsOf('s/high', 2, {}, { priority: 90 })],
      nodes: small,
    })
    expect(plan.assignments.every((each) => each.request.service === 's/high')).toBe(true)
  })
})

const nodeArb = fc.record({
  cpu: fc.integer({ min: 0, max: 1000 }),
  memory: fc.integer({ min: 0, max: 1000 }),
  slots: fc.integer({ min: 0, max: 5 }),
  zone: fc.constantFrom('z1', 'z2', null),
  taint: fc.boolean(),
  ssd: fc.boolean(),
  closed: fc.constantFrom(null, null, null, 'draining'),
})
const groupArb = fc.record({
  count: fc.integer({ min: 1, max: 8 }),
  cpu: fc.integer({ min: 0, max: 400 }),
  memory: fc.integer({ min: 1, max: 400 }),
  maxPerNode: fc.constantFrom(null, 1, 2),
  port: fc.boolean(),
  ssd: fc.boolean(),
  tolerates: fc.boolean(),
  zones: fc.boolean(),
  strategy: fc.constantFrom('spread', 'binpack', 'random', null),
  avoid: fc.constantFrom(null, 's/0', 's/1'),
  near: fc.constantFrom(null, null, 's/0', 's/2'),
  priority: fc.integer({ min: 0, max: 100 }),
})

describe('placement, always', () => {
  it('safety: never beyond a capacity, never against a filter, every instance once, explanations add up, order is irrelevant', () => {
    void fc.assert(
      fc.property(fc.array(nodeArb, { maxLength: 8 }), fc.array(groupArb, { maxLength: 6 }), (nodeSpecs, groups) => {
        const nodes = nodeSpecs.map((spec, index) => {
          const capacity = { cpuMillis: spec.cpu, memoryBytes: spec.memory, diskBytes: 0, slots: spec.slots }
          const labels: Record<string, string> = spec.ssd ? { disk: 'ssd' } : {}
          return node(`n${index}`, {
            capacity,
            free: capacity,
            zone: spec.zone,
            taints: spec.taint ? ['t'] : [],
            labels,
            closed: spec.closed,
          })
        })
        const requests = groups.flatMap((group, index) =>
          requestsOf(
            `s/${index}`,
            group.count,
            {
              charge: { cpuMillis: group.cpu, memoryBytes: group.memory, diskBytes: 0 },
              hostPorts: group.port ? ['80/tcp'] : [],
              avoid: group.avoid === null || group.avoid === `s/${index}` ? [] : [group.avoid],
              near: group.near === null ? [] : [group.near],
              affinityRequired: true,
            },
            {
              constraints: group.ssd ? [{ attribute: 'node.labels.disk', operator: '==', value: 'ssd' }] : [],
              tolerates: group.tolerates ? ['t'] : [],
              spreadOver: group.zones ? ['node.zone'] : [],
              maxPerNode: group.maxPerNode,
              strategy: group.strategy,
              priority: group.priority,
            },
          ),
        )
        const plan = planPlacement({ requests, nodes })
        expect(planPlacement({ requests: [...requests].reverse(), nodes: [...nodes].reverse() })).toEqual(plan)
        expect([...plan.assignments, ...plan.refusals].map((each) => each.instance).sort()).toEqual(
          requests.map((each) => each.id).sort(),
        )
        for (const { explanation } of plan.refusals) {
          expect(explanation.nodes).toBe(nodes.length)
          expect(explanation.rejected.reduce((sum, each) => sum + each.count, 0)).toBe(nodes.length)
        }
        for (const target of nodes) {
          const here = plan.assignments.filter((each) => each.node === target.id).map((each) => each.request)
          if (here.length === 0) continue
          expect(target.closed).toBeNull()
          expect(here.length).toBeLessThanOrEqual(target.free.slots)
          expect(here.reduce((sum, each) => sum + each.charge.cpuMillis, 0)).toBeLessThanOrEqual(target.free.cpuMillis)
          expect(here.reduce((sum, each) => sum + each.charge.memoryBytes, 0)).toBeLessThanOrEqual(target.free.memoryBytes)
          expect(here.filter((each) => each.hostPorts.length > 0).length).toBeLessThanOrEqual(1)
          const services = new Set(here.map((each) => each.service))
          for (const each of here) {
            if (target.taints.length > 0) expect(each.rules.tolerates).toContain('t')
            if (each.rules.constraints.length > 0) expect(target.labels.disk).toBe('ssd')
            const same = here.filter((other) => other.service === each.service).length
            if (each.rules.maxPerNode !== null) expect(same).toBeLessThanOrEqual(each.rules.maxPerNode)
            for (const other of each.avoid) expect(services.has(other)).toBe(false)
            for (const other of each.near) expect(services.has(other)).toBe(true)
          }
        }
      }),
      { numRuns: 300 },
    )
  })
})
