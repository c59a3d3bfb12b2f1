/** The checks bite: each promise is broken on purpose, past the product, and must be reported at the next step. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { aContainerSpec, anAppSpec, aScale, aServiceSpec, aUnitSpec } from '../builders/specs.ts'
import { type SimCluster, simCluster } from './cluster.ts'

describe('the invariants of the simulator', () => {
  let cluster: SimCluster
  const spec = anAppSpec({
    services: [aServiceSpec({ scale: aScale({ min: 2, max: 3 }), unit: aUnitSpec({ singletonStrictMs: 20_000 }) })],
  })

  beforeEach(async () => {
    cluster = await simCluster({ seed: 5, hosts: 2 })
    await cluster.deploy(spec)
    await cluster.settle()
  })
  afterEach(() => cluster.stop())

  const placed = () => [...cluster.running()][0] as [string, string]
  /** Puts a container on that host that nobody ordered. */
  const plant = async (instance: string, host: string) => {
    // Its agent would clear it away before it runs.
    cluster.killAgent(host)
    const { engine, nodeId } = cluster.host(host)
    const runtime = engine.runtime({ clusterId: cluster.lead().cluster.id, nodeId: nodeId ?? '' })
    engine.images.add('shop/web:1')
    const planted = runtime
      .create({
        instance,
        specHash: 'planted',
        spec: aContainerSpec(),
        sharesNetworkOf: null,
        ports: [],
        environment: {},
        hosts: [],
      } as unknown as Parameters<typeof runtime.create>[0])
      .then((id) => runtime.start(id))
    planted.catch(() => undefined)
    await cluster.advance(5_000)
  }
  const other = (host: string) => (host === 'h1' ? 'h2' : 'h1')

  it('I2: the same instance on two hosts', async () => {
    const [instance, host] = placed()
    await expect(plant(instance, other(host))).rejects.toThrow(/I2/)
  })

  it('I2: two generations of a strict singleton', async () => {
    const [instance, host] = placed()
    await expect(plant(`${instance.slice(0, instance.lastIndexOf('/'))}/99`, other(host))).rejects.toThrow(/I2: strict/)
  })

  it('I3: a count beyond its bounds', async () => {
    const { state } = cluster.lead()
    const record = state.snapshot.get('service', 'shop/web')
    if (!record) throw new Error('no record')
    state.commit(state.change().put('service', 'shop/web', { ...record, desired: 9, pinned: 9 })).catch(() => undefined)
    await expect(cluster.advance(100)).rejects.toThrow(/I3/)
  })

  it('I4: fewer serve than were promised', async () => {
    cluster.invariants.keepServing('shop/web', 2)
    const [instance, host] = placed()
    cluster.host(host).engine.crash(instance, 1)
    await expect(cluster.advance(100)).rejects.toThrow(/I4/)
  })

  it('I5: something acknowledged is gone', async () => {
    cluster.invariants.acknowledged(anAppSpec({ name: 'never-written' }))
    await expect(cluster.advance(5_000)).rejects.toThrow(/I5/)
  })

  it('I6 and I13: a set on an agent’s disk goes back', async () => {
    const { disk } = cluster.host('h1')
    disk.set('/state/link/keys.json', `${'0'.repeat(64)}\n{"epoch":0,"revision":0,"value":{}}`)
    await expect(cluster.advance(5_000)).rejects.toThrow(/I13/)
  })

  it('I9: a container is touched where none may be', async () => {
    cluster.invariants.freezeContainers(true)
    const [instance, host] = placed()
    cluster.host(host).engine.crash(instance, 1)
    await expect(cluster.advance(100)).rejects.toThrow(/I9/)
  })

  it('I12: a credential in a log line', async () => {
    const token = cluster.lead().joinTokens.create({ machineId: null, labels: {}, actor: 'operator:sim' })
    token.then(({ text }) => cluster.trace.logger('test').info(`joined with ${text}`)).catch(() => undefined)
    await expect(cluster.advance(100)).rejects.toThrow(/I12/)
  })

  it('I10: a node that does not come back', async () => {
    cluster.partition('h2')
    await cluster.advance(30_000)
    await expect(cluster.settle(5_000)).rejects.toThrow(/I10/)
  })
})
