import { describe, expect, it } from 'vitest'
import { aScale, aServiceSpec, anAppSpec, aUnitSpec, aContainerSpec, anUpdate } from '../builders/specs.ts'
import { simCluster, type SimCluster } from './cluster.ts'
import { containersOf } from './invariants.ts'

const web = (image: string) =>
  anAppSpec({
    name: 'shop',
    services: [
      aServiceSpec({
        scale: aScale({ min: 2, max: 12, windowMs: 10_000 }),
        update: anUpdate({ parallelism: 2, monitorMs: 3_000 }),
        unit: aUnitSpec({
          drainMs: 1_000,
          containers: [
            aContainerSpec({
              image,
              health: {
                probe: { kind: 'http', port: 80, path: '/health' },
                intervalMs: 5_000,
                timeoutMs: 2_000,
                retries: 3,
                startPeriodMs: 0,
                startIntervalMs: 1_000,
              },
            }),
          ],
        }),
      }),
    ],
  })

/** Deploy, scale by load, update, kill an agent, kill the coordinator, cut a node off; each time back to what is wanted. */
async function theWholeStory(seed: number): Promise<SimCluster> {
  const cluster = await simCluster({ seed, hosts: 3 })
  const { invariants } = cluster
  try {
    await cluster.deploy(web('shop/web:1'))
    await cluster.settle()
    expect(cluster.running().size).toBe(2)

    cluster.demand.set('shop/web', 500)
    await cluster.until(() => cluster.running().size >= 7, 'load has brought more instances', 120_000)
    await cluster.settle()
    const count = cluster.running().size
    expect(count).toBeLessThanOrEqual(12)

    invariants.keepServing('shop/web', count)
    await cluster.deploy(web('shop/web:2'))
    await cluster.settle(300_000)
    invariants.keepServing('shop/web', null)
    for (const host of cluster.hosts.values())
      for (const container of host.engine.containers.values()) expect(container.request.spec.image).toBe('shop/web:2')

    const before = containersOf(cluster)
    invariants.freezeContainers(true)
    cluster.killAgent('h2')
    await cluster.advance(8_000)
    cluster.startAgent('h2')
    await cluster.settle()
    expect(containersOf(cluster)).toBe(before)

    cluster.killCoordinator()
    await cluster.advance(90_000)
    await cluster.startCoordinator()
    await cluster.settle()
    invariants.freezeContainers(false)
    expect(containersOf(cluster)).toBe(before)

    cluster.partition('h3')
    await cluster.until(
      () => [...cluster.running().values()].filter((host) => host !== 'h3').length >= count,
      'replaced',
      120_000,
    )
    cluster.heal('h3')
    await cluster.settle()
    expect(cluster.running().size).toBe(count)
    await cluster.advance(30_000)
    await cluster.settle(1)
    expect(cluster.trace.errors).toEqual([])
    return cluster
  } catch (error) {
    process.stderr.write(`${cluster.trace.tail(120)}\n`)
    throw error
  } finally {
    await cluster.stop()
  }
}

describe('a coordinator and three agents under virtual time', () => {
  it('go through deploy, scaling, update, crashes and a partition in the same way twice from one seed', async () => {
    const first = await theWholeStory(7)
    const second = await theWholeStory(7)
    expect(second.trace.hash()).toBe(first.trace.hash())
    expect(second.trace.count).toBe(first.trace.count)
    expect(first.invariants.checks).toBeGreaterThan(500)
  })

  it('go another way from another seed, and end as they shall', async () => {
    const [first, other] = [await theWholeStory(7), await theWholeStory(8)]
    expect(other.trace.hash()).not.toBe(first.trace.hash())
  })
})
