/** The fast plan against the plain definition: a replay that looks at every node for every instance. */
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { PlacementRules } from '../../shared/model/app.ts'
import { type Answers, type GroupAnswer, NO_ANSWERS, type Verdict, verdictLabel, verdictOf } from './answers.ts'
import { explanationOf } from './explain.ts'
import { attributeOf, countOf, firstStaticRejection, firstTallyRejection, type NodeTally } from './filters.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode, type PlacementRequest } from './model.ts'
import { assumedNode } from './plan-offline.ts'
import { type PlacementPlan, planPlacement } from './plan-placement.ts'
import { nodeCost, stepsOf, strategyOf, zoneSteps } from './scores.ts'

const OPTIONS = DEFAULT_PLACEMENT_OPTIONS

/**
 * Every decision of the plan, in its order: the node must be one of the cheapest of all that no filter turns away, and where a custom
 * scheduler answered, one that it accepted and none that it accepted scored better.
 */
function replay(
  plan: PlacementPlan,
  nodes: readonly PlacementNode[],
  requests: readonly PlacementRequest[],
  answers: Answers = NO_ANSWERS,
): void {
  const tallies = nodes.map((node): NodeTally => {
    const { cpuMillis, memoryBytes, diskBytes, slots } = node.free
    return { node, cpuMillis, memoryBytes, diskBytes, slots, services: null, hostPorts: null, repels: null }
  })
  const volumes = new Map<string, Map<string, Set<string>>>()
  const note = (volume: string, node: string, service: string) => {
    const places = volumes.get(volume) ?? new Map<string, Set<string>>()
    volumes.set(volume, places)
    places.set(node, (places.get(node) ?? new Set()).add(service))
  }
  for (const node of nodes)
    for (const [volume, services] of node.volumes) for (const service of services) note(volume, node.id, service)
  const asked = (request: PlacementRequest) => {
    const isFirst = !tallies.some((tally) => countOf(tally, request.service) > 0)
    return isFirst ? { ...request, near: request.near.filter((other) => other !== request.service) } : request
  }
  const taken = new Map<string, number>()
  const judgement = (answer: GroupAnswer, request: PlacementRequest, tally: NodeTally) => {
    const verdict = verdictOf(answer, tally.node.id)
    if (verdict.kind === 'reject') return verdictLabel(answer, verdict.reason)
    const isFull = (taken.get(`${request.group} ${tally.node.id}`) ?? 0) >= (verdict.atMost ?? Number.POSITIVE_INFINITY)
    return isFull ? verdictLabel(answer, 'no more of these') : null
  }
  const filtered = (request: PlacementRequest, tally: NodeTally) =>
    firstStaticRejection(request, tally.node) ?? firstTallyRejection(asked(request), tally, volumes)
  const rejection = (request: PlacementRequest, tally: NodeTally) => {
    const answer = answers.get(request.group)
    return filtered(request, tally) ?? (answer === undefined ? null : judgement(answer, request, tally))
  }
  const scoreOf = (request: PlacementRequest, tally: NodeTally) => {
    const answer = answers.get(request.group)
    const verdict = answer === undefined ? null : verdictOf(answer, tally.node.id)
    return verdict?.kind === 'accept' ? Math.round(verdict.score * 100) / 100 : 0
  }
  const cost = (request: PlacementRequest, tally: NodeTally) => {
    const zones = request.rules.spreadOver.map((attribute, level) => {
      const value = attributeOf(tally.node, attribute) ?? ''
      const same = tallies.filter((other) => (attributeOf(other.node, attribute) ?? '') === value)
      return zoneSteps(
        same.reduce((sum, other) => sum + countOf(other, request.service), 0),
        level,
        OPTIONS,
      )
    })
    const own = stepsOf(nodeCost(asked(request), tally, strategyOf(request, OPTIONS), OPTIONS))
    return zones.reduce((sum, steps) => sum + steps, own)
  }

  const groupRank = new Map<string, number>()
  for (const { request } of plan.assignments) groupRank.set(request.group, groupRank.get(request.group) ?? groupRank.size)
  const refusedBy = new Map(plan.refusals.map((refusal) => [refusal.request.group, refusal]))
  const judged = new Set<string>()
  const judge = (group: string) => {
    const refusal = refusedBy.get(group)
    if (!refusal || judged.has(group)) return
    judged.add(group)
    const counts = new Map<string, number>()
    for (const tally of tallies) {
      const label = rejection(refusal.request, tally)
      expect(label).not.toBeNull()
      if (label !== null) counts.set(label, (counts.get(label) ?? 0) + 1)
    }
    expect(refusal.explanation).toEqual(explanationOf(nodes.length, counts))
  }
  let before: string | null = null
  for (const { request, node: id } of plan.assignments) {
    if (before !== null && before !== request.group) judge(before)
    before = request.group
    const open = tallies.filter((tally) => rejection(request, tally) === null)
    const chosen = tallies.find((tally) => tally.node.id === id) as NodeTally
    expect(open).toContain(chosen)
    const best = Math.max(...open.map((tally) => scoreOf(request, tally)))
    expect(scoreOf(request, chosen)).toBe(best)
    const equals = open.filter((tally) => scoreOf(request, tally) === best)
    expect(cost(request, chosen)).toBe(Math.min(...equals.map((tally) => cost(request, tally))))
    taken.set(`${request.group} ${id}`, (taken.get(`${request.group} ${id}`) ?? 0) + 1)
    chosen.cpuMillis -= request.charge.cpuMillis
    chosen.memoryBytes -= request.charge.memoryBytes
    chosen.diskBytes -= request.charge.diskBytes
    chosen.slots -= 1
    chosen.services ??= new Map()
    chosen.services.set(request.service, (chosen.services.get(request.service) ?? 0) + 1)
    for (const port of request.hostPorts) chosen.hostPorts = (chosen.hostPorts ?? new Set()).add(port)
    if (request.affinityRequired) for (const other of request.avoid) chosen.repels = (chosen.repels ?? new Set()).add(other)
    for (const volume of request.volumes) note(volume, id, request.service)
  }
  if (before !== null) judge(before)
  const ids = [...plan.assignments, ...plan.refusals].map((each) => each.instance)
  expect(ids.sort()).toEqual(requests.map((request) => request.id).sort())
}

const nodeArb = fc.record({
  cpu: fc.integer({ min: 0, max: 1000 }),
  memory: fc.constantFrom(500, 900, 1000, 1001),
  used: fc.double({ min: 0, max: 1, noNaN: true }),
  slots: fc.integer({ min: 0, max: 6 }),
  zone: fc.constantFrom('z1', 'z2', 'z3', null),
  host: fc.integer({ min: 0, max: 3 }),
  taint: fc.boolean(),
  ssd: fc.boolean(),
  closed: fc.constantFrom(null, null, null, 'draining'),
  measured: fc.constantFrom(null, 0, 0.2, 0.7),
  disk: fc.constantFrom(0, 7, 30),
  images: fc.subarray(['i0', 'i1', 'shared']),
  services: fc.uniqueArray(fc.constantFrom('s/0', 's/1', 's/2', 's/3'), { maxLength: 2 }),
  repels: fc.option(fc.constantFrom('s/0', 's/1'), { freq: 6 }),
  port: fc.boolean(),
})
const groupArb = fc.record({
  count: fc.integer({ min: 1, max: 9 }),
  cpu: fc.integer({ min: 0, max: 300 }),
  memory: fc.constantFrom(1, 20, 100, 300),
  maxPerNode: fc.constantFrom(null, null, 1, 2),
  port: fc.boolean(),
  disk: fc.constantFrom(0, 0, 0, 4, 9),
  constraint: fc.constantFrom(
    null,
    null,
    { attribute: 'node.labels.disk', operator: '==' as const, value: 'SSD' },
    { attribute: 'node.zone', operator: '!=' as const, value: 'z1' },
    { attribute: 'node.id', operator: '==' as const, value: 'n2' },
    { attribute: 'node.id', operator: '!=' as const, value: 'n1' },
    { attribute: 'node.hostname', operator: '==' as const, value: 'H1' },
  ),
  tolerates: fc.boolean(),
  spreadOver: fc.constantFrom([], [], ['node.zone'], ['node.zone', 'node.labels.disk'], ['node.hostname'], ['node.id']),
  strategy: fc.constantFrom('spread', 'binpack', 'random', null),
  avoid: fc.subarray(['s/0', 's/1', 's/2'], { maxLength: 2 }),
  near: fc.subarray(['s/0', 's/2', 's/3'], { maxLength: 1 }),
  required: fc.boolean(),
  images: fc.subarray(['i0', 'i1', 'shared']),
  volume: fc.constantFrom(null, null, null, 's/own', 's/shared'),
  home: fc.constantFrom(null, null, null, 'n0'),
})

const RULES: PlacementRules = {
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

type NodeSpec = typeof nodeArb extends fc.Arbitrary<infer T> ? T : never
type GroupSpec = typeof groupArb extends fc.Arbitrary<infer T> ? T : never

function nodeOf(spec: NodeSpec, index: number): PlacementNode {
  const capacity = { cpuMillis: spec.cpu, memoryBytes: spec.memory, diskBytes: spec.disk, slots: spec.slots }
  return assumedNode(`n${index}`, capacity, {
    hostname: `h${spec.host}`,
    free: { ...capacity, cpuMillis: Math.floor(spec.cpu * spec.used) },
    zone: spec.zone,
    taints: spec.taint ? ['t'] : [],
    labels: spec.ssd ? { disk: 'ssd' } : {},
    closed: spec.closed,
    measuredUse: spec.measured,
    images: new Set(spec.images),
    services: new Map(spec.services.map((service) => [service, 1])),
    repels: new Set(spec.repels === null ? [] : [spec.repels]),
    hostPorts: new Set(spec.port ? ['80/tcp'] : []),
  })
}

function requestsOf(group: GroupSpec, index: number): PlacementRequest[] {
  const service = `s/${index}`
  const base = {
    service,
    group: service,
    charge: { cpuMillis: group.cpu, memoryBytes: group.memory, diskBytes: group.disk },
    rules: {
      ...RULES,
      constraints: group.constraint === null ? [] : [group.constraint],
      tolerates: group.tolerates ? ['t'] : [],
      spreadOver: group.spreadOver,
      maxPerNode: group.maxPerNode,
      strategy: group.strategy as PlacementRules['strategy'],
    },
    hostPorts: group.port ? ['80/tcp'] : [],
    runtime: 'docker' as const,
    images: group.images,
    volumes: group.volume === null ? [] : [group.volume],
    home: group.home,
    near: group.near,
    avoid: group.avoid,
    affinityRequired: group.required,
    global: false,
  }
  return Array.from({ length: group.count }, (_, slot) => ({ ...base, id: `${service}/${slot + 1}/1` }))
}

describe('the plan and its plain definition', () => {
  it('V3–V5: each instance goes to a cheapest node; each refusal counts every node under the filter that turned it away', async () => {
    await fc.assert(
      fc.property(fc.array(nodeArb, { maxLength: 40 }), fc.array(groupArb, { maxLength: 6 }), (nodeSpecs, groups) => {
        const nodes = nodeSpecs.map(nodeOf)
        const requests = groups.flatMap(requestsOf)
        const plan = planPlacement({ requests, nodes })
        replay(plan, nodes, requests)
        expect(planPlacement({ requests: [...requests].reverse(), nodes: [...nodes].reverse() })).toEqual(plan)
      }),
      { numRuns: 400 },
    )
  })

  it('B4: whatever custom schedulers answer, no filter is broken, and their order holds among the nodes that pass', async () => {
    const verdictArb: fc.Arbitrary<Verdict> = fc.oneof(
      fc.record({
        kind: fc.constant('accept' as const),
        score: fc.oneof(fc.constantFrom(0, 50, 100), fc.double({ min: 0, max: 100, noNaN: true })),
        atMost: fc.constantFrom(null, null, 1, 2, 1_000_000),
      }),
      fc.record({ kind: fc.constant('reject' as const), reason: fc.constantFrom('too hot', 'no licence') }),
    )
    // Of some groups, of any nodes, also of nodes that do not exist, and open or closed to others.
    const answerArb = fc.option(
      fc.record({
        scheduler: fc.constantFrom('hot', 'gpu-first'),
        verdicts: fc.dictionary(
          fc.nat({ max: 45 }).map((index) => `n${index}`),
          verdictArb,
          { maxKeys: 30 },
        ),
        others: fc.constantFrom('closed' as const, 'open' as const),
      }),
      { freq: 4 },
    )
    await fc.assert(
      fc.property(
        fc.array(nodeArb, { maxLength: 40 }),
        fc.array(fc.tuple(groupArb, answerArb), { maxLength: 6 }),
        (nodeSpecs, groups) => {
          const nodes = nodeSpecs.map(nodeOf)
          const requests = groups.flatMap(([group], index) => requestsOf(group, index))
          const answers = new Map(
            groups.flatMap(([, answer], index): [string, GroupAnswer][] =>
              answer === null ? [] : [[`s/${index}`, { ...answer, verdicts: new Map(Object.entries(answer.verdicts)) }]],
            ),
          )
          const plan = planPlacement({ requests, nodes, answers })
          replay(plan, nodes, requests, answers)
          expect(planPlacement({ requests: [...requests].reverse(), nodes: [...nodes].reverse(), answers })).toEqual(plan)
        },
      ),
      { numRuns: 400 },
    )
  })

  it('V3: also in a cluster large enough that the tree is laid out many times', async () => {
    await fc.assert(
      fc.property(fc.array(groupArb, { minLength: 30, maxLength: 40 }), fc.integer({ min: 1, max: 1000 }), (groups, seed) => {
        const nodes = Array.from({ length: 150 }, (_, index) => {
          const capacity = { cpuMillis: 1000, memoryBytes: 1000 + ((index * seed) % 7), diskBytes: 0, slots: 6 }
          return assumedNode(`n${index}`, capacity, {
            zone: `z${(index * seed) % 3}`,
            labels: index % 2 ? { disk: 'ssd' } : {},
            // Common enough not to be looked up by node.
            images: new Set(index % 3 ? ['shared', 'i0'] : ['i1']),
          })
        })
        const requests = groups.map((group) => ({ ...group, count: group.count * 3 })).flatMap(requestsOf)
        replay(planPlacement({ requests, nodes }), nodes, requests)
      }),
      { numRuns: 15 },
    )
  })
})
