import { describe, expect, it } from 'vitest'
import { parseInstanceId } from '../../shared/model/identity.ts'
import { type ModelCluster, modelCluster } from '../../test/builders/model-cluster.ts'
import { aNodeRecord } from '../../test/builders/records.ts'
import { anAppSpec, aRestartPolicy, aContainerSpec, aServiceSpec, anUpdate, aUnitSpec } from '../../test/builders/specs.ts'
import type { ServiceSpec } from '../../shared/model/app.ts'
import { removeApp, rollbackApp, scaleService } from './deploy.ts'

const WEB = 'shop/web'
const spec = (fields: Partial<ServiceSpec> = {}) =>
  anAppSpec({ services: [aServiceSpec({ update: anUpdate({ monitorMs: 2_000 }), ...fields })] })
const slots = (cluster: ModelCluster, service = WEB) =>
  cluster.runs(service).map((record) => parseInstanceId(record.id)?.slot ?? 0)
const types = async (cluster: ModelCluster) => (await cluster.state.events({ limit: 1000 })).map((event) => event.type)

describe('services loop', () => {
  it('brings an app up, scales it, and takes it down without a trace', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ replicas: 3 }))
    await cluster.run(5)
    expect(cluster.ready(WEB)).toHaveLength(3)
    await cluster.state.commit(scaleService(cluster.state, { app: 'shop', service: 'web', count: 5, by: 't' }).change)
    await cluster.run(5)
    expect(slots(cluster).sort()).toEqual([1, 2, 3, 4, 5])
    await cluster.state.commit(scaleService(cluster.state, { app: 'shop', service: 'web', count: 2, by: 't' }).change)
    await cluster.run(6)
    expect(slots(cluster)).toHaveLength(2)
    await cluster.state.commit(removeApp(cluster.state, { name: 'shop', by: 't' }).change)
    await cluster.run(6)
    expect([...cluster.state.snapshot.instances().keys()]).toEqual([])
    expect(cluster.state.snapshot.all('app').size + cluster.state.snapshot.all('service').size).toBe(0)
    await cluster.stop()
    expect(cluster.clock.pendingTimers).toBe(0)
  })

  it('I2: an app that was removed and is deployed again repeats no identity', async () => {
    const cluster = await modelCluster(2)
    await cluster.state.commit(
      cluster.state.change().put('cluster', 'cluster', { id: 'c-1', createdAtMs: cluster.clock.now(), meshSecret: '' }),
    )
    const used = new Set<string>()
    for (let round = 0; round < 2; round += 1) {
      await cluster.deploy(spec({ replicas: 2 }))
      await cluster.run(5)
      expect(cluster.ready(WEB)).toHaveLength(2)
      for (const { id } of cluster.runs(WEB)) {
        expect(used).not.toContain(id)
        used.add(id)
      }
      await cluster.state.commit(removeApp(cluster.state, { name: 'shop', by: 't' }).change)
      await cluster.run(6)
      expect(cluster.state.snapshot.all('service').size).toBe(0)
    }
    await cluster.stop()
  })

  it('updates start-first without ever having fewer ready instances than wanted', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ replicas: 4 }))
    await cluster.run(6)
    cluster.watch = () => expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(4)
    await cluster.deploy(spec({ replicas: 4, specHash: 'v2' }))
    await cluster.run(60)
    expect(new Set(cluster.runs(WEB).map((record) => record.specHash))).toEqual(new Set(['v2']))
    expect(slots(cluster)).toHaveLength(4)
    expect(cluster.state.snapshot.get('service', WEB)?.rollout?.phase).toBe('completed')
    expect(await types(cluster)).toContain('rollout.completed')
    await cluster.stop()
  })

  it.each(['start-first', 'stop-first'] as const)(
    'a service that must grow while an update %s is unproven grows by what works',
    async (order) => {
      const cluster = await modelCluster(3)
      const update = anUpdate({ order, monitorMs: 20_000 })
      await cluster.deploy(spec({ replicas: 2, specHash: 'v1', update }))
      await cluster.run(30)
      await cluster.deploy(spec({ replicas: 2, specHash: 'v2', update }))
      await cluster.run(3)
      await cluster.state.commit(scaleService(cluster.state, { app: 'shop', service: 'web', count: 6, by: 't' }).change)
      cluster.watch = () => {
        const ready = new Set(cluster.ready(WEB))
        const isProven = cluster.runs(WEB).filter(({ specHash }) => specHash === 'v2').length > 1
        if (!isProven) return
        // More than one of the new spec only once the first was ready for as long as the update wants to see it.
        expect(cluster.runs(WEB).filter(({ id, specHash }) => specHash === 'v2' && ready.has(id)).length).toBeGreaterThan(0)
      }
      await cluster.run(8)
      const hashes = cluster.runs(WEB).map(({ specHash }) => specHash)
      expect(hashes.filter((hash) => hash === 'v2')).toHaveLength(1)
      expect(hashes.filter((hash) => hash === 'v1').length).toBeGreaterThanOrEqual(5)
      await cluster.run(250)
      expect(cluster.runs(WEB).map(({ specHash }) => specHash)).toEqual(Array(6).fill('v2'))
      expect(cluster.ready(WEB)).toHaveLength(6)
      await cluster.stop()
    },
  )

  it('updates stop-first without two generations of a slot beside each other', async () => {
    const cluster = await modelCluster(2)
    const update = anUpdate({ order: 'stop-first', monitorMs: 0 })
    await cluster.deploy(spec({ replicas: 2, update }))
    await cluster.run(6)
    cluster.watch = () =>
      expect(
        [...cluster.running.values()].flatMap((m) => [...m.values()].filter((p) => p !== 'stopped')).length,
      ).toBeLessThanOrEqual(2)
    await cluster.run(30)
    await cluster.deploy(spec({ replicas: 2, update, specHash: 'v2' }))
    for (let i = 0; i < 40; i += 1) {
      await cluster.run(1)
      // One after the other, not the next as soon as the first has stopped.
      expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(1)
    }
    expect(cluster.runs(WEB).map((record) => record.specHash)).toEqual(['v2', 'v2'])
    expect(cluster.state.snapshot.get('service', WEB)?.rollout?.phase).toBe('completed')
    await cluster.stop()
  })

  it('row 44: a bad rollout stops and goes back, the old instances stay untouched', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ replicas: 3, specHash: 'v1' }))
    await cluster.run(6)
    const before = cluster.ready(WEB).sort()
    cluster.badHashes.add('v2')
    cluster.watch = () => expect(cluster.ready(WEB)).toEqual(expect.arrayContaining(before))
    await cluster.deploy(spec({ replicas: 3, specHash: 'v2' }))
    await cluster.run(30)
    const app = cluster.state.snapshot.get('app', 'shop')
    expect(app?.revision).toBe(3)
    expect(app?.spec.services[0]?.specHash).toBe('v1')
    expect(app?.history[0]?.failedReason).toContain('failed')
    expect(cluster.ready(WEB).sort()).toEqual(before)
    expect(cluster.runs(WEB)).toHaveLength(3)
    expect((await types(cluster)).filter((type) => type === 'app.rolled-back')).toHaveLength(1)
    // The revision that failed is not what a manual rollback returns to.
    expect(() => rollbackApp(cluster.state, { name: 'shop', by: 't' }, 0)).toThrow(/kept are 2, 1/)
    await cluster.stop()
  })

  it('row 44: two bad deploys in a row lead back to what ran before both', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ replicas: 2, specHash: 'v1' }))
    await cluster.run(6)
    cluster.badHashes.add('v2').add('v3')
    await cluster.deploy(spec({ replicas: 2, specHash: 'v2' }))
    await cluster.deploy(spec({ replicas: 2, specHash: 'v3' }))
    await cluster.run(30)
    expect(cluster.state.snapshot.get('app', 'shop')?.spec.services[0]?.specHash).toBe('v1')
    expect(cluster.ready(WEB)).toHaveLength(2)
    await cluster.stop()
  })

  it('an instance that proved itself is not blamed for a moment of bad health late in a long rollout', async () => {
    const cluster = await modelCluster(3)
    const update = anUpdate({ monitorMs: 10_000, progressDeadlineMs: 15_000 })
    await cluster.deploy(spec({ replicas: 4, specHash: 'v1', update }))
    await cluster.run(6)
    await cluster.deploy(spec({ replicas: 4, specHash: 'v2', update }))
    await cluster.run(30)
    expect(cluster.state.snapshot.get('service', WEB)?.rollout?.phase).toBe('progressing')
    const first = cluster.runs(WEB).find((record) => record.specHash === 'v2')
    const seen = cluster.observed.instance(first?.id ?? '')
    if (seen === undefined) throw new Error('the first new instance is not there')
    for (const healthy of [false, true]) {
      cluster.observed.setInstance({ ...seen, healthy })
      await cluster.run(3)
    }
    await cluster.run(60)
    expect(cluster.state.snapshot.get('app', 'shop')?.revision).toBe(2)
    expect(new Set(cluster.runs(WEB).map((record) => record.specHash))).toEqual(new Set(['v2']))
    // One that stays unwell is still to blame, after as long as it had at first.
    await cluster.deploy(spec({ replicas: 4, specHash: 'v3', update }))
    await cluster.run(30)
    const bad = cluster.runs(WEB).find((record) => record.specHash === 'v3')
    const sick = cluster.observed.instance(bad?.id ?? '')
    if (sick === undefined) throw new Error('the first new instance is not there')
    cluster.observed.setInstance({ ...sick, healthy: false })
    await cluster.run(17)
    expect(cluster.state.snapshot.get('app', 'shop')?.spec.services[0]?.specHash).toBe('v2')
    await cluster.stop()
  })

  it('replaces what a lost node ran, and row 25: its return leaves one copy', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ replicas: 3 }))
    await cluster.run(5)
    await cluster.setNode('n-2', { up: false })
    await cluster.run(5)
    expect(cluster.ready(WEB)).toHaveLength(3)
    await cluster.setNode('n-2', { up: true })
    await cluster.run(5)
    expect(cluster.ready(WEB)).toHaveLength(3)
    expect(cluster.state.snapshot.instances().size).toBe(3)
    await cluster.stop()
  })

  it('row 25: a node that comes back before its replacements found a place just goes on', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(spec({ replicas: 2 }))
    await cluster.run(5)
    const before = cluster.ready(WEB).sort()
    await cluster.setNode('n-1', { up: false })
    await cluster.run(30)
    expect(cluster.state.snapshot.get('service', WEB)?.pending).toHaveLength(2)
    await cluster.setNode('n-1', { up: true })
    cluster.watch = () => expect(cluster.ready(WEB).sort()).toEqual(expect.arrayContaining(before))
    await cluster.run(10)
    expect(cluster.ready(WEB).sort()).toEqual(before)
    expect(cluster.state.snapshot.instances().size).toBe(2)
    await cluster.stop()
  })

  it('row 25: a replacement that fails beside a lost instance is tried again ever more slowly', async () => {
    const cluster = await modelCluster(2)
    await cluster.deploy(spec({ specHash: 'v1' }))
    await cluster.run(5)
    cluster.badHashes.add('v1')
    await cluster.setNode(cluster.runs(WEB)[0]?.nodeId ?? '', { up: false })
    await cluster.run(300)
    const last = cluster.state.snapshot.get('service', WEB)?.generations[1] ?? 0
    expect(last).toBeGreaterThan(2)
    expect(last).toBeLessThan(9)
    await cluster.stop()
  })

  describe('with data on its node', () => {
    const mount = { kind: 'volume' as const, source: 'data', target: '/data', readOnly: false }
    const keeper = (fields: Partial<ServiceSpec> = {}) =>
      spec({ unit: aUnitSpec({ containers: [aContainerSpec({ mounts: [mount] })] }), ...fields })

    it('an instance waits for its lost node instead of beginning anew without its data', async () => {
      const cluster = await modelCluster(3)
      await cluster.deploy(keeper())
      await cluster.run(5)
      const [record] = cluster.runs(WEB)
      await cluster.setNode(record?.nodeId ?? '', { up: false })
      await cluster.run(120)
      expect(cluster.state.snapshot.instances().size).toBe(1)
      await cluster.setNode(record?.nodeId ?? '', { up: true })
      await cluster.run(5)
      expect(cluster.ready(WEB)).toEqual([record?.id])
      await cluster.stop()
    })

    it('no two generations of a slot run beside each other, though it is stopped and wanted again at once', async () => {
      const cluster = await modelCluster(1)
      await cluster.deploy(keeper({ replicas: 2 }))
      await cluster.run(5)
      const here = () => [...(cluster.running.get('n-1')?.entries() ?? [])].filter(([, phase]) => phase !== 'stopped')
      cluster.watch = () => expect(here().length).toBeLessThanOrEqual(2)
      for (const count of [1, 2]) {
        await cluster.state.commit(scaleService(cluster.state, { app: 'shop', service: 'web', count, by: 't' }).change)
        await cluster.run(1)
      }
      await cluster.run(10)
      expect(cluster.ready(WEB)).toHaveLength(2)
      await cluster.stop()
    })
  })

  it('row 18: nothing is replaced for silence of a node that is only unknown, suspect, or lost while frozen', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ replicas: 3 }))
    await cluster.run(5)
    const before = [...cluster.state.snapshot.instances().keys()].sort()
    cluster.observed.setFrozen({ reason: 'too many', untilMs: cluster.clock.now() + 600_000 })
    await cluster.setNode('n-1', { up: false })
    await cluster.setNode('n-2', { up: false })
    await cluster.crashCoordinator()
    await cluster.run(120)
    expect([...cluster.state.snapshot.instances().keys()].sort()).toEqual(before)
    await cluster.stop()
  })

  it('row 24: a strict singleton is replaced only after its node must have stopped it, however slow its clock (row 38)', async () => {
    const cluster = await modelCluster(2)
    await cluster.deploy(spec({ unit: aUnitSpec({ singletonStrictMs: 60_000, stopGraceMs: 10_000 }) }))
    await cluster.run(5)
    const home = cluster.runs(WEB)[0]?.nodeId ?? ''
    await cluster.setNode(home, { up: false })
    // (60 s + 10 s) by a clock that runs at two thirds of ours, and 15 s.
    await cluster.run(115)
    expect(cluster.state.snapshot.instances().size).toBe(1)
    await cluster.run(10)
    expect(cluster.ready(WEB)).toEqual(['shop/web/1/2'])
    await cluster.stop()
  })

  it('row 24: an update away from a strict singleton ends each old one first, and goes through', async () => {
    const cluster = await modelCluster(4)
    const update = anUpdate({ order: 'start-first', parallelism: 2, monitorMs: 1_000 })
    const versionOf = (specHash: string, singletonStrictMs: number | null) =>
      spec({ replicas: 3, specHash, update, unit: aUnitSpec({ singletonStrictMs }) })
    await cluster.deploy(versionOf('v1', 60_000))
    await cluster.run(6)
    expect(cluster.ready(WEB)).toHaveLength(3)
    cluster.watch = () => {
      const slots = [...cluster.running.values()]
        .flatMap((here) => [...here].flatMap(([id, phase]) => (phase === 'stopped' ? [] : [id])))
        .map((id) => parseInstanceId(id)?.slot)
      expect(new Set(slots).size).toBe(slots.length)
    }
    await cluster.deploy(versionOf('v2', null))
    await cluster.run(40)
    expect(cluster.runs(WEB).map(({ specHash }) => specHash)).toEqual(['v2', 'v2', 'v2'])
    expect(cluster.ready(WEB)).toHaveLength(3)
    // From here on it is as any other.
    cluster.watch = () => expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(3)
    await cluster.deploy(versionOf('v3', null))
    await cluster.run(40)
    expect(cluster.runs(WEB).map(({ specHash }) => specHash)).toEqual(['v3', 'v3', 'v3'])
    await cluster.stop()
  })

  it('row 42: two overlapping drains of a service with two instances never leave fewer than two ready', async () => {
    const cluster = await modelCluster(4)
    await cluster.deploy(spec({ replicas: 2 }))
    await cluster.run(5)
    cluster.watch = () => expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(2)
    for (const record of cluster.runs(WEB)) await cluster.setNode(record.nodeId ?? '', { availability: 'draining' })
    await cluster.run(20)
    expect(cluster.runs(WEB).map((record) => cluster.state.snapshot.get('node', record.nodeId ?? '')?.availability)).toEqual([
      'active',
      'active',
    ])
    expect(cluster.state.snapshot.instances().size).toBe(2)
    await cluster.stop()
  })

  it('a copy on another node takes over only when it is ready; until then the one that is well stays', async () => {
    const cluster = await modelCluster(2)
    await cluster.deploy(spec())
    await cluster.run(5)
    const [old] = cluster.runs(WEB)
    const from = old?.nodeId ?? ''
    const to = from === 'n-1' ? 'n-2' : 'n-1'
    cluster.watch = () => expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(1)
    if (!old) throw new Error('nothing runs')
    const copy = { ...old, id: 'shop/web/1/2', nodeId: to, replaces: old.id, moves: true as const }
    await cluster.state.commit(cluster.state.change().put('assignments', to, { nodeId: to, instances: [copy] }))
    await cluster.run(20)
    expect([...cluster.state.snapshot.instances().values()].map(({ id, nodeId }) => [id, nodeId])).toEqual([['shop/web/1/2', to]])
    await cluster.stop()
  })

  it('Q6: instances move to the pools that their service is allowed now, never fewer ready than wanted, and back again', async () => {
    const cluster = await modelCluster(4)
    const move = async (from: string, to: string) => {
      for (const [id, pool] of [
        ['n-1', 'a'],
        ['n-2', 'a'],
        ['n-3', 'b'],
        ['n-4', 'b'],
      ] as const) {
        const availability = pool === from ? 'cordoned' : 'active'
        const node = aNodeRecord({ id, pool, availability })
        await cluster.state.commit(cluster.state.change().put('node', id, node))
      }
      const web = spec({ replicas: 4 }).services[0]
      if (!web) throw new Error('no service')
      await cluster.deploy(anAppSpec({ services: [{ ...web, placement: { ...web.placement, pools: [to] } }] }))
      await cluster.run(40)
    }
    const where = () => cluster.runs(WEB).map(({ nodeId }) => cluster.state.snapshot.get('node', nodeId ?? '')?.pool)
    await move('b', 'a')
    expect(where()).toEqual(['a', 'a', 'a', 'a'])
    cluster.watch = () => expect(cluster.ready(WEB).length).toBeGreaterThanOrEqual(4)
    await move('a', 'b')
    expect(where()).toEqual(['b', 'b', 'b', 'b'])
    expect(cluster.state.snapshot.instances().size).toBe(4)
    await move('b', 'a')
    expect(where()).toEqual(['a', 'a', 'a', 'a'])
    await cluster.stop()
  })

  it('row 43: a drain that finds no place keeps its instances; taken back, nothing is left of it', async () => {
    const cluster = await modelCluster(1)
    await cluster.deploy(spec())
    await cluster.run(5)
    await cluster.setNode('n-1', { availability: 'draining' })
    await cluster.run(30)
    expect(cluster.ready(WEB)).toEqual(['shop/web/1/1'])
    await cluster.setNode('n-1', { availability: 'active' })
    await cluster.run(5)
    expect([...cluster.state.snapshot.instances().keys()]).toEqual(['shop/web/1/1'])
    await cluster.stop()
  })

  it('row 22: an instance that keeps failing is tried again ever more slowly', async () => {
    const cluster = await modelCluster(2)
    cluster.badHashes.add('v1')
    await cluster.deploy(spec({ specHash: 'v1' }))
    await cluster.run(600)
    const generation = parseInstanceId(cluster.runs(WEB)[0]?.id ?? '')?.generation ?? 0
    expect(generation).toBeGreaterThan(3)
    expect(generation).toBeLessThan(10)
    await cluster.stop()
  })

  it('a dependant waits until what it depends on is ready, or its job is done', async () => {
    const cluster = await modelCluster(2)
    const job = aUnitSpec({ containers: [aContainerSpec({ restart: aRestartPolicy({ condition: 'none' }) })] })
    const services = [
      aServiceSpec({ name: 'migrate', unit: job }),
      aServiceSpec({ name: 'web', dependsOn: [{ service: 'migrate', condition: 'completed', required: true }] }),
    ]
    await cluster.deploy(anAppSpec({ services }))
    await cluster.run(10)
    expect(cluster.runs(WEB)).toEqual([])
    for (const here of cluster.running.values())
      for (const id of here.keys()) if (id.startsWith('shop/migrate')) here.set(id, 'stopped')
    await cluster.run(10)
    expect(cluster.ready(WEB)).toHaveLength(1)
    expect(cluster.runs('shop/migrate').map((record) => record.id)).toEqual(['shop/migrate/1/1'])
    await cluster.stop()
  })

  it('keeps one instance of a global service on every active node', async () => {
    const cluster = await modelCluster(3)
    await cluster.deploy(spec({ mode: 'global' }))
    await cluster.run(6)
    expect(
      cluster
        .runs(WEB)
        .map((record) => record.nodeId)
        .sort(),
    ).toEqual(['n-1', 'n-2', 'n-3'])
    await cluster.setNode('n-2', { availability: 'draining' })
    await cluster.run(6)
    expect(
      cluster
        .runs(WEB)
        .map((record) => record.nodeId)
        .sort(),
    ).toEqual(['n-1', 'n-3'])
    await cluster.stop()
  })
})
