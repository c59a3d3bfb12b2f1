/** Rows of the fault matrix that need the whole cluster, one story each. The random faults try them in every combination. */
import { describe, expect, it } from 'vitest'
import { anAppSpec, aServiceSpec, aUnitSpec } from '../builders/specs.ts'
import { type SimCluster, simCluster } from './cluster.ts'
import { containersOf } from './invariants.ts'

const shop = (fields: Parameters<typeof aServiceSpec>[0] = {}) =>
  anAppSpec({ services: [aServiceSpec({ replicas: 3, ...fields })] })

async function story(hosts: number, tell: (cluster: SimCluster) => Promise<void>): Promise<void> {
  const cluster = await simCluster({ seed: 42, hosts })
  try {
    await tell(cluster)
  } catch (error) {
    process.stderr.write(`${cluster.trace.tail(60)}\n`)
    throw error
  } finally {
    await cluster.stop()
  }
}

describe('a whole cluster', () => {
  it('row 1: containers keep running, untouched, while the coordinator is dead and when it is back', () =>
    story(3, async (cluster) => {
      await cluster.deploy(shop())
      await cluster.settle()
      const before = containersOf(cluster)
      cluster.invariants.freezeContainers(true)
      const routes = JSON.stringify([...cluster.hosts.values()].map((host) => host.gateway?.routes))
      cluster.killCoordinator()
      await cluster.advance(600_000)
      expect(JSON.stringify([...cluster.hosts.values()].map((host) => host.gateway?.routes))).toBe(routes)
      await cluster.startCoordinator()
      await cluster.settle()
      expect(containersOf(cluster)).toBe(before)
    }))

  it('row 17: frames that come twice start nothing twice', () =>
    story(2, async (cluster) => {
      for (let i = 0; i < 20; i += 1) for (const host of ['h1', 'h2']) cluster.network.duplicateNext(host, 'down')
      await cluster.deploy(shop())
      await cluster.settle()
      const starts = [...cluster.hosts.values()].flatMap((host) =>
        [...host.engine.containers.values()].map((item) => item.starts),
      )
      expect(starts).toEqual([1, 1, 1])
    }))

  it('row 24: a strict singleton never runs twice, whichever node is cut off and for how long', () =>
    story(3, async (cluster) => {
      await cluster.deploy(shop({ replicas: 1, unit: aUnitSpec({ singletonStrictMs: 20_000 }) }))
      await cluster.settle()
      for (const cutMs of [5_000, 19_000, 60_000, 200_000]) {
        const [where] = [...cluster.running().values()]
        cluster.partition(where ?? 'h1')
        await cluster.advance(cutMs)
        cluster.heal(where ?? 'h1')
        await cluster.settle(180_000)
        expect(cluster.running().size).toBe(1)
      }
    }))

  it('row 32: agents take nothing from a coordinator on an old backup; what runs stays', () =>
    story(2, async (cluster) => {
      await cluster.deploy(shop())
      await cluster.settle()
      const backup = structuredClone({ objects: [...cluster.disk.objects], epoch: cluster.disk.epoch })
      for (let life = 0; life < 2; life += 1) {
        cluster.killCoordinator()
        await cluster.startCoordinator()
        await cluster.settle()
      }
      const before = containersOf(cluster)
      cluster.invariants.freezeContainers(true)
      cluster.killCoordinator()
      cluster.disk.objects.clear()
      for (const [key, value] of backup.objects) cluster.disk.objects.set(key, value)
      cluster.disk.epoch = backup.epoch
      await cluster.startCoordinator()
      await cluster.advance(120_000)
      expect([...cluster.lead().hub.observed.nodes()].filter((node) => node.connected)).toEqual([])
      expect(containersOf(cluster)).toBe(before)
    }))

  it('row 36: an agent whose disk is full serves with the keys that it has in memory, and acknowledges none', () =>
    story(1, async (cluster) => {
      const host = cluster.host('h1')
      await cluster.deploy(shop({ replicas: 1 }))
      await cluster.settle()
      await cluster.advance(10_000)
      const { keys } = cluster.lead()
      const write = host.disk.set.bind(host.disk)
      host.disk.set = () => {
        throw new Error('ENOSPC')
      }
      let id: string | null = null
      keys.create({ name: 'ci', roles: [], expiresAtMs: null, actor: 'operator:sim' }).then(
        ({ record }) => {
          id = record.id
        },
        () => undefined,
      )
      await cluster.until(() => id !== null && host.agent?.view.keys.key(id) !== undefined, 'the agent has the key', 30_000)
      await cluster.advance(5_000)
      const revision = cluster.lead().hub.keysRevision()
      expect(cluster.lead().hub.keysAppliedBy(revision)).toMatchObject({ pending: [host.nodeId] })
      expect(cluster.trace.errors.some((line) => line.includes('could not be saved'))).toBe(true)
      host.disk.set = write
      await cluster.advance(20_000)
      expect(cluster.lead().hub.keysAppliedBy(revision)).toMatchObject({ pending: [] })
    }))
})
