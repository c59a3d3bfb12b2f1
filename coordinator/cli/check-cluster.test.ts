import { describe, expect, it } from 'vitest'
import type { FleetStatus, InstanceView, NodeView, ServiceView } from '../api/schemas.ts'
import { checkCluster, type ClusterState } from './check-cluster.ts'

const fleet: FleetStatus = { pools: [], spentUsd: 1, projectedUsd: 2, budgetUsdPerMonth: 100, reasons: [] }
const calm: ClusterState = { services: [], instances: [], nodes: [], fleet, nowMs: 0 }
const service = (fields: Partial<ServiceView>) =>
  ({ id: 'shop/web', waitsFor: null, pending: 0, ports: [], job: null, rollout: null, ...fields }) as ServiceView
const textsOf = (state: Partial<ClusterState>) =>
  checkCluster({ ...calm, ...state }).map(({ name, outcome, text, next }) => `${outcome} ${name}: ${text} → ${next}`)

describe('what is amiss in a cluster', () => {
  it('says so when nothing is', () => {
    expect(checkCluster({ ...calm, services: [service({})] })).toEqual([
      { name: 'cluster', outcome: 'ok', text: '1 service; nothing waits, loops or has failed' },
    ])
  })

  it('names what waits, loops, has failed and is silent, each with the next step', () => {
    const run = { outcome: 'failed', message: 'completion 1 failed 2 times' }
    const services = [
      service({ waitsFor: '0 of 1 node: 1 memory', pending: 4 }),
      service({ id: 'nights/broken', job: { runs: [run] } as unknown as NonNullable<ServiceView['job']> }),
    ]
    const instances = [{ id: 'shop/w/1/1', crashLooping: true, restarts: 5, message: 'exited with code 7' } as InstanceView]
    const nodes = [{ id: 'n-1', liveness: 'lost', instances: 2 } as NodeView]
    expect(textsOf({ services, instances, nodes })).toEqual([
      'warning waits: shop/web (4 instances): 0 of 1 node: 1 memory → rubato explain shop/web',
      'warning crash loop: shop/w/1/1, 5 restarts: exited with code 7 → rubato logs shop/w/1/1; rubato explain shop/w/1/1',
      'warning job: nights/broken has failed: completion 1 failed 2 times → rubato events --subject nights/broken',
      'warning node: n-1 is lost, 2 instances on it → rubato events --subject n-1',
    ])
  })

  it('names a port of two services, a pool that rests, and a budget that is nearly used up', () => {
    const ports = [{ port: 8080, containerPort: 80, protocol: 'http', mode: 'ingress' }]
    const pool = { name: 'small', cooling: { untilMs: 90_000, reason: 'sold out' } } as FleetStatus['pools'][number]
    expect(
      textsOf({
        services: [service({ ports }), service({ id: 'two/web', ports })],
        fleet: { ...fleet, pools: [pool], projectedUsd: 95 },
      }),
    ).toEqual([
      'warning port: 8080/tcp is published by shop/web and by two/web → publish another port of one of them',
      'warning pool: small rests for 90 s: sold out → rubato fleet status',
      expect.stringMatching(/^warning budget: \$95\.00 of this month's \$100\.00 /),
    ])
  })

  it('counts what it does not name', () => {
    const services = Array.from({ length: 8 }, (_, index) => service({ id: `shop/s${index}`, waitsFor: 'x' }))
    const found = checkCluster({ ...calm, services })
    expect(found).toHaveLength(6)
    expect(found.at(-1)?.text).toBe('3 more of this kind')
  })
})
