/** What pulling ahead is for, in the whole system: a slow registry must not keep a service down, nor make it late. */
import { describe, expect, it } from 'vitest'
import { anApp } from './apps.ts'
import { type SimCluster, simCluster } from './cluster.ts'

const PULL_MS = 20_000

async function cluster(pullAhead: boolean, hosts: number): Promise<SimCluster> {
  const made = await simCluster({ seed: 7, hosts, pullAhead })
  await made.advance(1_000)
  return made
}
const slowRegistry = (made: SimCluster) => {
  for (const host of made.hosts.values()) host.engine.pullMs = PULL_MS
}
const pulls = (made: SimCluster) =>
  [...made.hosts.values()].flatMap((host) => host.engine.journal.filter((line) => line.startsWith('pull ')))
const ready = (made: SimCluster) =>
  [...made.lead().hub.observed.instances()].filter((instance) => instance.phase === 'ready' && instance.healthy).length

/** Time for which nothing was ready while a stop-first update of a single instance was carried out. */
async function outageOfUpdate(pullAhead: boolean): Promise<number> {
  const made = await cluster(pullAhead, 2)
  const app = (image: string) =>
    anApp({ name: 'shop', image, replicas: 1, update: { order: 'stop-first', progressDeadlineMs: 120_000 } })
  await made.deploy(app('shop/web:1'))
  await made.settle()
  slowRegistry(made)
  await made.deploy(app('shop/web:2'))
  let downMs = 0
  const isDone = () => made.lead().state.snapshot.get('service', 'shop/web')?.rollout?.phase === 'completed'
  for (let ms = 0; ms < 120_000 && !isDone(); ms += 100) {
    await made.advance(100)
    if (ready(made) === 0) downMs += 100
  }
  expect(isDone()).toBe(true)
  await made.settle()
  await made.stop()
  return downMs
}

/** From a jump of the demand until as many instances are ready as it needs. */
async function reactionToLoad(pullAhead: boolean): Promise<{ readonly tookMs: number; readonly pulls: number }> {
  const made = await cluster(pullAhead, 3)
  await made.deploy(anApp({ name: 'shop', image: 'shop/web:1', replicas: 1, scale: [1, 3] }))
  await made.settle()
  slowRegistry(made)
  // The image has time to come: nothing is wanted yet.
  await made.advance(2 * PULL_MS + 5_000)
  expect(ready(made)).toBe(1)
  made.demand.set('shop/web', 200)
  const beganMs = made.clock.monotonicMs()
  await made.until(() => ready(made) === 3, 'three are ready', 120_000)
  const tookMs = made.clock.monotonicMs() - beganMs
  await made.settle()
  const count = pulls(made).length
  await made.stop()
  return { tookMs, pulls: count }
}

describe('images pulled ahead', () => {
  it('B9: a stop-first update keeps the service down for the start of the new instance, not for its pull', async () => {
    const without = await outageOfUpdate(false)
    const outage = await outageOfUpdate(true)
    expect(without).toBeGreaterThan(PULL_MS)
    expect(outage).toBeLessThan(without - PULL_MS + 1_000)
  })

  it('B9: instances for a jump of load start at once on nodes that have the image, which nobody pulled twice', async () => {
    const without = await reactionToLoad(false)
    const reaction = await reactionToLoad(true)
    expect(without.tookMs).toBeGreaterThan(PULL_MS)
    expect(reaction.tookMs).toBeLessThan(without.tookMs - PULL_MS + 1_000)
    expect(reaction.pulls).toBe(without.pulls)
  })
})
