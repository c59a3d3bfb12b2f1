import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { assumedNode } from './plan-offline.ts'
import type { PlacementNode, PlacementRequest } from './model.ts'
import { planPreemption, PRIORITY_STEP, type PreemptionInput } from './plan-preemption.ts'
import type { Tenant } from './plan-victims.ts'

function request(id: string, priority: number, cpuMillis: number, overrides: Partial<PlacementRequest> = {}): PlacementRequest {
  const service = id.split('/').slice(0, 2).join('/')
  return {
    id,
    service,
    group: service,
    charge: { cpuMillis, memoryBytes: 0, diskBytes: 0 },
    rules: {
      constraints: [],
      spreadOver: [],
      maxPerNode: null,
      affinity: null,
      tolerates: [],
      pools: [],
      strategy: null,
      platform: null,
      priority,
    },
    hostPorts: [],
    runtime: 'docker',
    images: [],
    volumes: [],
    home: null,
    near: [],
    avoid: [],
    affinityRequired: false,
    global: false,
    ...overrides,
  }
}

function tenant(id: string, priority: number, cpuMillis: number, overrides: Partial<Tenant> = {}): Tenant {
  return { id, request: request(id, priority, cpuMillis), stopping: false, isProtected: false, ...overrides }
}

function cluster(tenants: Record<string, readonly Tenant[]>, refused: readonly PlacementRequest[], limit = 10): PreemptionInput {
  const nodes = Object.entries(tenants).map(([id, here]): PlacementNode => {
    const capacity = { cpuMillis: 1000, memoryBytes: 1000, diskBytes: 0, slots: 20 }
    const used = here.reduce((sum, { request: { charge } }) => sum + charge.cpuMillis, 0)
    const services = new Map<string, number>()
    for (const { request: each, stopping } of here)
      if (!stopping) services.set(each.service, (services.get(each.service) ?? 0) + 1)
    return assumedNode(id, capacity, { free: { ...capacity, cpuMillis: 1000 - used, slots: 20 - here.length }, services })
  })
  return { refused, nodes, tenantsOf: (id) => tenants[id] ?? [], disruptable: () => limit }
}

const victims = (input: PreemptionInput) => planPreemption(input).evictions.map((eviction) => eviction.victim)

describe('preemption', () => {
  it('takes the node where the least important go, then the fewest', () => {
    const input = cluster(
      {
        a: [tenant('s/mid/1/1', 50, 1000)],
        b: [tenant('s/low/1/1', 10, 500), tenant('s/low/2/1', 10, 500)],
        c: [tenant('s/low/3/1', 10, 1000)],
      },
      [request('s/vip/1/1', 90, 1000)],
    )
    expect(victims(input)).toEqual(['s/low/3/1'])
  })

  it('spares who is not in the way', () => {
    const input = cluster({ a: [tenant('s/low/1/1', 10, 100), tenant('s/low/2/1', 20, 800), tenant('s/x/1/1', 95, 100)] }, [
      request('s/vip/1/1', 90, 800),
    ])
    expect(victims(input)).toEqual(['s/low/2/1'])
  })

  it('evicts nothing for a difference below the step, nothing protected, nothing beyond a disruption limit', () => {
    const vip = request('s/vip/1/1', 50, 800)
    expect(victims(cluster({ a: [tenant('s/low/1/1', 50 - PRIORITY_STEP + 1, 1000)] }, [vip]))).toEqual([])
    expect(victims(cluster({ a: [tenant('s/low/1/1', 0, 1000, { isProtected: true })] }, [vip]))).toEqual([])
    const two = { a: [tenant('s/low/1/1', 0, 500), tenant('s/low/2/1', 0, 500)] }
    expect(victims(cluster(two, [vip], 1))).toEqual([])
    expect(victims(cluster(two, [vip], 2))).toHaveLength(2)
  })

  it('waits for what is stopping already instead of evicting more', () => {
    const input = cluster({ a: [tenant('s/low/1/1', 0, 1000, { stopping: true })], b: [tenant('s/low/2/1', 0, 1000)] }, [
      request('s/vip/1/1', 90, 1000),
    ])
    expect(victims(input)).toEqual([])
  })

  it('does not promise the same room twice', () => {
    const input = cluster({ a: [tenant('s/low/1/1', 0, 1000)] }, [request('s/vip/1/1', 90, 800), request('s/vip/2/1', 90, 800)])
    const [first, ...others] = planPreemption(input).evictions
    expect(first?.beneficiary).toBe('s/vip/1/1')
    expect(others).toEqual([])
  })

  it('frees host ports and removes anti-affinity along with who holds them', () => {
    const holder = tenant('s/low/1/1', 0, 10)
    const input = cluster({ a: [{ ...holder, request: { ...holder.request, hostPorts: ['80/tcp'] } }] }, [
      request('s/vip/1/1', 90, 10, { hostPorts: ['80/tcp'] }),
    ])
    const nodes = input.nodes.map((node) => ({ ...node, hostPorts: new Set(['80/tcp']) }))
    expect(victims({ ...input, nodes })).toEqual(['s/low/1/1'])
  })

  it('finds out from sums alone that nothing can help, whatever the cluster: 20 that ask for whole nodes of 100 others', () => {
    const many = Object.fromEntries(
      Array.from({ length: 50 }, (_, host) => [
        `n${host}`,
        Array.from({ length: 100 }, (_, slot) => tenant(`low${host}/s${slot}/1/1`, 10, 9)),
      ]),
    )
    let looks = 0
    const tenants = Object.fromEntries(
      Object.entries(many).map(([host, here]) => [
        host,
        here.map((each) => ({
          ...each,
          get request() {
            looks += 1
            return each.request
          },
        })),
      ]),
    )
    const refused = Array.from({ length: 20 }, (_, index) => request(`evil/h${index}/1/1`, 100, 1000))
    const input = cluster(tenants, refused)
    const nodes = input.nodes.map((node) => ({ ...node, free: { ...node.free, cpuMillis: 0, slots: 0 } }))
    looks = 0
    expect(planPreemption({ ...input, nodes, maxWork: Number.POSITIVE_INFINITY })).toEqual({
      evictions: [],
      held: [],
      after: null,
    })
    // About as many as there are tenants times the logarithm of their number; it was that times 20 × 100 × 2.
    expect(looks).toBeLessThan(5_000 * 30)
  })

  it('looks at as many nodes as its work allows, goes on after them, and has been everywhere after enough passes', () => {
    const names = Array.from({ length: 40 }, (_, host) => `n${String(host).padStart(2, '0')}`)
    const asked: string[] = []
    const full = Object.fromEntries(names.map((host) => [host, [tenant(`s/keep/${host.slice(1)}/1`, 90, 1000)]]))
    const input = cluster({ ...full, n33: [tenant('s/low/1/1', 10, 1000)] }, [request('s/vip/1/1', 90, 1000)])
    const tenantsOf = (id: string) => {
      asked.push(id)
      return input.tenantsOf(id)
    }
    let after: string | null = null
    const found: string[] = []
    let passes = 0
    do {
      const before = asked.length
      const plan = planPreemption({ ...input, tenantsOf, after, maxWork: 50 })
      expect(asked.length - before).toBeLessThan(12)
      found.push(...plan.evictions.map(({ victim }) => victim))
      after = plan.after
      passes += 1
    } while (found.length === 0 && passes < 20)
    expect(found).toEqual(['s/low/1/1'])
    expect(asked).toEqual([...asked].sort())
  })

  it('takes no more of others for one app than it may, and says for whom it would have', () => {
    const hosts = Object.fromEntries(Array.from({ length: 6 }, (_, host) => [`n${host}`, [tenant(`t${host}/web/1/1`, 50, 1000)]]))
    const refused = Array.from({ length: 6 }, (_, slot) => request(`evil/web/${slot + 1}/1`, 100, 1000))
    const plan = planPreemption({ ...cluster(hosts, refused), allowance: () => 2 })
    expect(plan.evictions.map(({ victim }) => victim)).toEqual(['t0/web/1/1', 't1/web/1/1'])
    expect(plan.held.map(({ id }) => id)).toEqual(['evil/web/3/1', 'evil/web/4/1', 'evil/web/5/1', 'evil/web/6/1'])
  })

  it('safety: only less important, unprotected ones, within the limit, and each makes room for somebody', async () => {
    const tenantArb = fc.record({
      priority: fc.integer({ min: 0, max: 100 }),
      cpu: fc.integer({ min: 1, max: 500 }),
      isProtected: fc.boolean(),
      stopping: fc.boolean(),
      service: fc.integer({ min: 0, max: 3 }),
    })
    await fc.assert(
      fc.property(
        fc.array(fc.array(tenantArb, { maxLength: 5 }), { minLength: 1, maxLength: 4 }),
        fc.array(fc.record({ priority: fc.integer({ min: 0, max: 100 }), cpu: fc.integer({ min: 1, max: 1000 }) }), {
          maxLength: 4,
        }),
        fc.integer({ min: 0, max: 2 }),
        (hosts, waiting, limit) => {
          const tenants = Object.fromEntries(
            hosts.map((here, host) => [
              `n${host}`,
              here.map((each, slot) =>
                tenant(`s/t${each.service}/${host * 10 + slot}/1`, each.priority, each.cpu, {
                  isProtected: each.isProtected,
                  stopping: each.stopping,
                }),
              ),
            ]),
          )
          const refused = waiting.map((each, slot) => request(`s/w${slot}/1/1`, each.priority, each.cpu))
          const input = cluster(tenants, refused, limit)
          const { evictions } = planPreemption(input)
          expect(
            planPreemption({ ...input, refused: [...refused].reverse(), nodes: [...input.nodes].reverse() }).evictions,
          ).toEqual(evictions)
          const all = Object.values(tenants).flat()
          const perService = new Map<string, number>()
          for (const eviction of evictions) {
            const victim = all.find((each) => each.id === eviction.victim)
            const beneficiary = refused.find((each) => each.id === eviction.beneficiary)
            expect(victim?.isProtected || victim?.stopping).toBe(false)
            expect(victim?.request.rules.priority).toBeLessThanOrEqual((beneficiary?.rules.priority ?? 0) - PRIORITY_STEP)
            perService.set(eviction.service, (perService.get(eviction.service) ?? 0) + 1)
          }
          for (const count of perService.values()) expect(count).toBeLessThanOrEqual(limit)
          for (const node of input.nodes) {
            const evicted = new Set(evictions.filter(({ node: id }) => id === node.id).map(({ victim }) => victim))
            const freed = (tenants[node.id] ?? []).filter((each) => each.stopping || evicted.has(each.id))
            const helped = new Set(evictions.filter(({ node: id }) => id === node.id).map(({ beneficiary }) => beneficiary))
            const room = freed.reduce((sum, each) => sum + each.request.charge.cpuMillis, node.free.cpuMillis)
            const need = refused.filter(({ id }) => helped.has(id)).reduce((sum, each) => sum + each.charge.cpuMillis, 0)
            if (helped.size > 0) expect(room).toBeGreaterThanOrEqual(need)
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})
