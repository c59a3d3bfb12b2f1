/** The hub with real links of model agents, over a model network under virtual time. */
import { afterEach, describe, expect, it } from 'vitest'
import { CLOSE } from '../../shared/protocol/frames.ts'
import {
  aCapacity,
  aMachineRecord,
  anAppRecord,
  anInstanceRecord,
  aNodeRecord,
  aPool,
  aServiceRecord,
  someAssignments,
} from '../../test/builders/records.ts'
import { aStatus, linkBed, type LinkBed } from '../../test/builders/link-bed.ts'
import { aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'

let bed: LinkBed
afterEach(async () => {
  await bed.stop()
  await bed.clock.advance(30_000)
  expect(bed.clock.pendingTimers).toBe(0)
})

const web = aServiceSpec()
const record = (id: string, nodeId: string, fields = {}) => anInstanceRecord({ id, nodeId, ...fields })
const assign = (nodeId: string, ...ids: string[]) =>
  bed.commit((change) =>
    change.put(
      'assignments',
      nodeId,
      someAssignments(
        nodeId,
        ids.map((id) => record(id, nodeId)),
      ),
    ),
  )
const deploy = () =>
  bed.commit((change) =>
    change
      .put('app', 'shop', anAppRecord({ spec: { name: 'shop', services: [web] } }))
      .put('service', 'shop/web', aServiceRecord()),
  )
const aKey = (id: string, fields = {}) => ({
  id,
  name: id,
  roles: [],
  secretHash: 'h',
  createdAtMs: 0,
  expiresAtMs: null,
  revokedAtMs: null,
  ...fields,
})
const ids = (set: readonly { instance: string }[] | undefined) => set?.map((item) => item.instance).sort()

async function start(nodes: string[], settings = {}) {
  bed = await linkBed(settings)
  for (const id of nodes) await bed.addNode(id)
  await deploy()
}

describe('hub and link', () => {
  it('gives an agent its full sets, then deltas, and knows what it applied', async () => {
    await start(['n-1'])
    await assign('n-1', 'shop/web/1/1')
    await bed.commit((change) => change.put('key', 'k1', aKey('k1')))
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.desired.length === 1, 'the first set')
    expect(ids(agent.desired[0])).toEqual(['shop/web/1/1'])
    expect(agent.link.keyRing.key('k1')?.id).toBe('k1')
    expect(agent.link.keyRing.policy('shop/web')).toEqual(web.unit.access)
    expect(Buffer.from(agent.link.keyRing.meshSecret ?? []).toString()).toBe('secret')
    await assign('n-1', 'shop/web/1/1', 'shop/web/2/1')
    await bed.clock.advance(200)
    expect(ids(agent.desired.at(-1))).toEqual(['shop/web/1/1', 'shop/web/2/1'])
    expect(agent.link.counters.resyncs).toBe(0)
    expect(bed.hub.observed.node('n-1')).toMatchObject({ connected: true, liveness: 'live', appliedDesiredRevision: 2 })
    await bed.commit((change) => change.put('key', 'k1', aKey('k1', { revokedAtMs: 5 })))
    const revision = bed.hub.keysRevision()
    expect(bed.hub.keysAppliedBy(revision).pending).toEqual(['n-1'])
    await bed.clock.advance(200)
    expect(agent.link.keyRing.key('k1')).toBeUndefined()
    expect(bed.hub.keysAppliedBy(revision)).toMatchObject({ applied: ['n-1'], pending: [] })
  })

  it('a node is believed to have what its machine was ordered with, whatever its agent says, and the event says what it said', async () => {
    await start(['n-1'])
    const ordered = aCapacity({ cpuMillis: 2_000, memoryBytes: 4 * 2 ** 30 })
    await bed.commit((change) =>
      change
        .put('pool', 'small', aPool({ capacity: ordered }))
        .put('machine', 'm-1', aMachineRecord({ phase: 'joined', nodeId: 'n-1', capacity: ordered }))
        .put('node', 'n-1', aNodeRecord({ pool: 'small', machineId: 'm-1', capacity: aCapacity({ cpuMillis: 1e9 }) })),
    )
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    await bed.clock.advance(200)
    expect(bed.state.snapshot.get('node', 'n-1')?.capacity).toMatchObject({ cpuMillis: 2_000, memoryBytes: 4 * 2 ** 30 })
    const [event, ...others] = await bed.state.events({ type: 'node.capacity-differs' })
    expect(event?.message).toContain('1000000 CPUs instead of 2 CPUs, of which it counts for the latter and 8.00 GiB instead')
    expect(others).toEqual([])
  })

  it('routes to what is ready on every node of the app, and marks it draining as soon as it shall stop', async () => {
    await start(['n-1', 'n-2', 'n-3'])
    await assign('n-1', 'shop/web/1/1')
    await assign('n-2', 'shop/web/2/1')
    const [one, two, other] = [await bed.agent('n-1'), await bed.agent('n-2'), await bed.agent('n-3')]
    await bed.clock.until(() => bed.hub.stats().sessions === 3, 'all to connect')
    one.link.sendStatus([aStatus('shop/web/1/1', { phase: 'starting', healthy: false })])
    await bed.clock.advance(200)
    expect(two.routes.at(-1)?.[0]?.endpoints).toEqual([])
    one.link.sendStatus([aStatus('shop/web/1/1')])
    await bed.clock.advance(200)
    expect(two.routes.at(-1)?.[0]).toMatchObject({
      service: 'shop/web',
      containerPort: 80,
      ordinal: 1,
      endpoints: [{ instance: 'shop/web/1/1', node: 'n-1', gatewayPort: 20_000, state: 'ready' }],
    })
    expect(other.routes.at(-1) ?? []).toEqual([])
    one.link.sendReport({ node: null, instances: [aUse('shop/web/1/1', 42)], full: true })
    await bed.clock.advance(1500)
    expect(two.loads).toContainEqual({ 'shop/web/1/1': 42 })
    expect(other.loads).not.toContainEqual({ 'shop/web/1/1': 42 })
    // A gateway that begins to route there is told at once what is known, though the load does not change any more.
    await assign('n-3', 'shop/web/3/1')
    await bed.clock.advance(200)
    expect(other.loads).toContainEqual({ 'shop/web/1/1': 42 })
    await bed.commit((change) =>
      change.put('assignments', 'n-1', someAssignments('n-1', [record('shop/web/1/1', 'n-1', { goal: 'stop' })])),
    )
    await bed.clock.advance(200)
    expect(two.routes.at(-1)?.[0]?.endpoints).toMatchObject([{ state: 'draining' }])
    expect(one.desired.at(-1)).toMatchObject([{ goal: 'stop' }])
  })

  it('an instance that was given up and is then told to stop is seen as stopped; nothing else follows a failure', async () => {
    await start(['n-1'])
    await assign('n-1', 'shop/web/1/1')
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => bed.hub.stats().sessions === 1, 'it to connect')
    for (const [phase, seen] of [
      ['failed', 'failed'],
      ['ready', 'failed'],
      ['stopped', 'stopped'],
      ['failed', 'stopped'],
    ] as const) {
      agent.link.sendStatus([aStatus('shop/web/1/1', { phase, healthy: false })])
      await bed.clock.advance(200)
      expect(bed.hub.observed.instance('shop/web/1/1')?.phase).toBe(seen)
    }
  })

  it('row 23, row 25: a node cut off becomes suspect, then lost; back again it tells its inventory before it gets its set', async () => {
    await start(['n-1', 'n-2'])
    await assign('n-1', 'shop/web/1/1')
    const agent = await bed.agent('n-1')
    await bed.agent('n-2')
    await bed.clock.until(() => bed.hub.stats().sessions === 2, 'both to connect')
    agent.inventory.set('shop/web/1/1', aStatus('shop/web/1/1'))
    agent.link.sendStatus([aStatus('shop/web/1/1')])
    await bed.clock.advance(1000)
    bed.network.partition('n-1')
    await bed.clock.advance(17_000)
    expect(bed.hub.observed.node('n-1')?.liveness).toBe('suspect')
    await bed.clock.advance(31_000)
    expect(bed.hub.observed.node('n-1')).toMatchObject({ liveness: 'lost', connected: false })
    expect(bed.hub.observed.instance('shop/web/1/1')?.phase).toBe('ready')
    await bed.commit((change) =>
      change.put('assignments', 'n-1', someAssignments('n-1', [record('shop/web/1/1', 'n-1', { goal: 'stop' })])),
    )
    agent.inventory.set('shop/web/9/1', aStatus('shop/web/9/1'))
    const before = agent.desired.length
    const order: string[] = []
    bed.network.onDelivered(({ text }) => order.push((JSON.parse(text) as { type: string }).type))
    bed.network.heal('n-1')
    await bed.clock.until(() => agent.desired.length > before, 'the new set')
    expect(order.indexOf('hello')).toBeLessThan(order.indexOf('desired'))
    expect(agent.desired.at(-1)).toMatchObject([{ instance: 'shop/web/1/1', goal: 'stop' }])
    expect(bed.hub.observed.instance('shop/web/9/1')?.nodeId).toBe('n-1')
    expect(bed.hub.observed.node('n-1')?.liveness).toBe('live')
    const events = (await bed.state.events({ subjectPrefix: 'n-1' })).map((event) => event.type)
    expect(events).toEqual(['node.suspect', 'node.lost', 'node.live'])
  })

  it('row 26: a half-open connection is dropped within 25 s and made anew', async () => {
    await start(['n-1'])
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    bed.network.halfOpen('n-1', 'up')
    await bed.clock.advance(26_000)
    await bed.clock.until(() => agent.link.connected() && bed.hub.observed.node('n-1')?.liveness === 'live', 'a new one', 5000)
    expect(bed.network.connectionsOf('n-1')).toBe(1)
  })

  it('row 40: a lost update is noticed at the next one and the full set is fetched; a duplicate changes nothing', async () => {
    await start(['n-1'])
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.desired.length === 1, 'the first set')
    bed.network.loseNext('n-1', 'down')
    await bed.commit((change) => change.put('assignments', 'n-1', someAssignments('n-1', [record('shop/web/1/1', 'n-1')])))
    await bed.clock.advance(500)
    await bed.commit((change) => change.put('key', 'k9', aKey('k9')))
    await bed.clock.advance(500)
    await assign('n-1', 'shop/web/1/1', 'shop/web/2/1')
    await bed.clock.advance(500)
    expect(agent.link.counters.resyncs).toBeGreaterThan(0)
    expect(ids(agent.desired.at(-1))).toEqual(['shop/web/1/1', 'shop/web/2/1'])
    expect(agent.link.keyRing.key('k9')).toBeDefined()
    const count = agent.desired.length
    bed.network.duplicateNext('n-1', 'down')
    await assign('n-1', 'shop/web/2/1')
    await bed.clock.advance(500)
    expect(ids(agent.desired.at(-1))).toEqual(['shop/web/2/1'])
    expect(agent.desired.length - count).toBeLessThanOrEqual(1)
    expect(agent.keyRevisions).toEqual([...agent.keyRevisions].sort((a, b) => a - b))
  })

  it('row 1: a restarted coordinator raises the epoch, asks nothing to be stopped, and knows its agents again', async () => {
    await start(['n-1'])
    await assign('n-1', 'shop/web/1/1')
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.desired.length === 1, 'the first set')
    agent.inventory.set('shop/web/1/1', aStatus('shop/web/1/1'))
    const epoch = bed.state.epoch
    await bed.restartCoordinator()
    expect(bed.state.epoch).toBeGreaterThan(epoch)
    expect(bed.hub.observed.node('n-1')?.liveness).toBe('unknown')
    expect(bed.hub.observed.frozen).not.toBeNull()
    await bed.clock.until(() => bed.hub.observed.instance('shop/web/1/1') !== undefined, 'the inventory')
    await bed.clock.advance(1500)
    expect(bed.hub.observed.frozen).toBeNull()
    for (const set of agent.desired) expect(ids(set)).toEqual(['shop/web/1/1'])
  })

  it('row 28: an agent refuses a coordinator of an earlier epoch, also after its own restart', async () => {
    await start(['n-1'])
    const disk = new Map<string, string>()
    const agent = await bed.agent('n-1', { disk })
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    await agent.link.stop()
    disk.set('/state/link/epoch', '99')
    const again = await bed.agent('n-1', { disk })
    await bed.clock.advance(20_000)
    expect(again.link.connected()).toBe(false)
    expect(again.desired.length).toBeLessThanOrEqual(1)
    expect(bed.hub.stats().sessions).toBe(0)
  })

  it('the newer of two connections of one node wins, and the two do not chase each other', async () => {
    await start(['n-1'])
    const first = await bed.agent('n-1')
    await bed.clock.until(() => first.link.connected(), 'the first')
    const second = await bed.agent('n-1', { host: 'clone' })
    await bed.clock.until(() => second.link.connected(), 'the second')
    await bed.clock.advance(100)
    expect(first.link.connected()).toBe(false)
    expect(bed.hub.stats().sessions).toBe(1)
    const dials = bed.network.dials.length
    await bed.clock.advance(60_000)
    expect(bed.network.dials.length - dials).toBeLessThan(40)
  })

  it("ignores what a node has no right to speak of, and closes 4403 on another node's instance", async () => {
    await start(['n-1', 'n-2'])
    await assign('n-2', 'shop/web/2/1')
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    agent.link.sendStatus([aStatus('shop/ghost/1/1'), aStatus('no-instance')])
    await bed.clock.advance(100)
    expect(bed.hub.stats().ignoredStatuses).toBe(2)
    expect([...bed.hub.observed.instances()]).toEqual([])
    agent.link.sendStatus([aStatus('shop/web/2/1')])
    await bed.clock.advance(100)
    expect(agent.link.connected()).toBe(false)
    expect((await bed.state.events({ type: 'node.forged-status' })).length).toBe(1)
  })

  it("a node that claims an instance before it is another's does not speak for it afterwards", async () => {
    await start(['n-1', 'n-2'])
    const thief = await bed.agent('n-1')
    thief.inventory.set('shop/web/7/1', aStatus('shop/web/7/1', { containerId: 'stolen' }))
    await bed.clock.until(() => thief.link.connected(), 'the connection')
    await assign('n-2', 'shop/web/7/1')
    const owner = await bed.agent('n-2')
    await bed.clock.until(() => owner.link.connected(), "the owner's connection")
    owner.link.sendStatus([aStatus('shop/web/7/1', { containerId: 'real' })])
    await bed.clock.advance(100)
    thief.link.sendStatus([aStatus('shop/web/7/1', { phase: 'failed', containerId: 'stolen' })])
    await bed.clock.advance(100)
    expect(bed.hub.observed.instance('shop/web/7/1')).toMatchObject({ nodeId: 'n-2', containerId: 'real', phase: 'ready' })
  })

  it('row 24, row 26: contact is the last word that was answered, not a connection that stays open', async () => {
    await start(['n-1'])
    const agent = await bed.agent('n-1')
    expect(agent.link.contactMs()).toBeNull()
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    await bed.clock.advance(60_000)
    expect(bed.clock.monotonicMs() - (agent.link.contactMs() ?? 0)).toBeLessThan(6_000)
    for (const direction of ['up', 'down'] as const) {
      await bed.clock.until(() => agent.link.connected(), 'a connection')
      await bed.clock.advance(10_000)
      bed.network.halfOpen('n-1', direction)
      const cutMs = bed.clock.monotonicMs()
      await bed.clock.advance(20_000)
      expect(agent.link.connected()).toBe(true)
      expect(agent.link.contactMs()).toBeLessThanOrEqual(cutMs)
      await bed.clock.advance(10_000)
    }
  })

  it('unknown frame types are counted, bad ones close the link, another major is refused', async () => {
    await start(['n-1'])
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    bed.network.forge('n-1', '{"type":"tea","sugar":2}')
    await bed.clock.advance(50)
    expect(bed.hub.stats().unknownFrames).toBe(1)
    expect(agent.link.connected()).toBe(true)
    bed.network.forge('n-1', '{"type":"report","node":null,"instances":[{"instance":"x","loadPercent":1e308}],"full":false}')
    await bed.clock.advance(50)
    expect(bed.hub.stats().badFrames).toBe(1)
    expect(agent.link.connected()).toBe(false)
    const closes: number[] = []
    const outcome = bed.network.dialer('n-1').dial('http://coordinator-a:7600', 'n-1', new AbortController().signal)
    await bed.clock.advance(30)
    const opened = await outcome
    if (opened.kind !== 'open') throw new Error('not open')
    opened.connection.onClose((code) => closes.push(code))
    opened.connection.send('{"type":"hello","major":2,"other":true}')
    await bed.clock.advance(50)
    expect(closes).toEqual([CLOSE.wrongMajor])
  })

  it('row 27: 200 agents that lose the coordinator together come back spread out, and all come back', async () => {
    const names = Array.from({ length: 200 }, (_, index) => `n-${index}`)
    await start(names, { maxGreeting: 64 })
    for (const name of names) await bed.agent(name)
    await bed.clock.until(() => bed.hub.stats().sessions === 200, 'all to connect')
    await bed.clock.advance(40_000)
    const before = bed.network.dials.length
    const fellMs = bed.clock.monotonicMs()
    await bed.restartCoordinator()
    await bed.clock.until(() => bed.hub.stats().sessions === 200, 'all to return', 120_000)
    const again = bed.network.dials.slice(before).map((dial) => dial.atMs - fellMs)
    const perSlot = new Map<number, number>()
    for (const at of again) perSlot.set(Math.floor(at / 50), (perSlot.get(Math.floor(at / 50)) ?? 0) + 1)
    expect(Math.max(...perSlot.values())).toBeLessThan(80)
  })

  it('freezes when three of five nodes go silent at once, and says so; the others are not lost meanwhile', async () => {
    const names = ['n-1', 'n-2', 'n-3', 'n-4', 'n-5']
    await start(names)
    for (const name of names) await bed.agent(name)
    await bed.clock.until(() => bed.hub.stats().sessions === 5, 'all to connect')
    await bed.clock.advance(2000)
    for (const name of ['n-1', 'n-2', 'n-3']) bed.network.partition(name)
    await bed.clock.advance(60_000)
    expect(bed.hub.observed.frozen?.reason).toContain('3 of 5')
    expect([...bed.hub.observed.nodes()].map((node) => node.liveness).sort()).toEqual([
      'live',
      'live',
      'suspect',
      'suspect',
      'suspect',
    ])
    bed.network.heal('n-1')
    bed.network.heal('n-2')
    await bed.clock.advance(60_000)
    expect(bed.hub.observed.frozen).toBeNull()
    expect(bed.hub.observed.node('n-3')?.liveness).toBe('lost')
    expect((await bed.state.events({ type: 'cluster.frozen' })).length).toBe(1)
  })

  it('row 41, row 15: an agent that starts without a coordinator serves what it had; a damaged file gives way to the one before', async () => {
    await start(['n-1'])
    const disk = new Map<string, string>()
    await bed.commit((change) => change.put('key', 'k1', aKey('k1')))
    await assign('n-1', 'shop/web/1/1')
    const agent = await bed.agent('n-1', { disk })
    await bed.clock.until(() => agent.desired.length === 1, 'the first set')
    await bed.commit((change) => change.put('key', 'k2', aKey('k2')))
    await bed.clock.advance(200)
    await agent.link.stop()
    const keysFile = disk.get('/state/link/keys.json') ?? ''
    const alone = async () => {
      const restarted = await bed.agent('n-1', { disk: new Map(disk), urls: ['http://nobody:1'] })
      await restarted.link.stop()
      return restarted
    }
    const whole = await alone()
    expect(ids(whole.desired[0])).toEqual(['shop/web/1/1'])
    expect(whole.link.keyRing.key('k2')).toBeDefined()
    expect(whole.link.keyRing.confirmedAtMs).not.toBeNull()
    disk.set('/state/link/keys.json', keysFile.replace('k2', 'kX'))
    const older = await alone()
    expect(older.link.keyRing.key('k1')).toBeDefined()
    expect(older.link.keyRing.key('k2')).toBeUndefined()
    disk.set('/state/link/keys.previous.json', 'rubbish')
    disk.set('/state/link/desired.json', '')
    disk.delete('/state/link/desired.previous.json')
    const none = await alone()
    expect(none.link.keyRing.key('k1')).toBeUndefined()
    expect(none.desired).toEqual([])
  })

  it('reads logs of an instance through its agent, and says so when the node is away', async () => {
    await start(['n-1'])
    await assign('n-1', 'shop/web/1/1')
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    agent.link.sendStatus([aStatus('shop/web/1/1')])
    await bed.clock.advance(100)
    const lines: string[] = []
    const read = (async () => {
      for await (const line of bed.hub.logs('shop/web/1/1', { follow: false, tail: 10 }, new AbortController().signal))
        lines.push(line.text)
    })()
    await bed.clock.advance(100)
    await read
    expect(lines).toEqual(['hello from shop/web/1/1'])
    await agent.link.stop()
    await bed.clock.advance(100)
    const away = bed.hub.logs('shop/web/1/1', { follow: true, tail: 10 }, new AbortController().signal)
    await expect(away[Symbol.asyncIterator]().next()).rejects.toMatchObject({ code: 'unavailable' })
  })

  it('tells a removed node to leave, forgets it, and it dials no more', async () => {
    await start(['n-1'])
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.link.connected(), 'the connection')
    await bed.commit((change) => change.delete('node', 'n-1'))
    await bed.clock.advance(500)
    expect(agent.left).toHaveLength(1)
    expect(bed.hub.observed.node('n-1')).toBeUndefined()
    const dials = bed.network.dials.length
    await bed.clock.advance(60_000)
    expect(bed.network.dials.length).toBe(dials)
  })

  it('a set larger than one frame arrives whole', async () => {
    await start(['n-1'])
    const unit = aUnitSpec({
      singletonStrictMs: null,
      containers: aUnitSpec().containers.map((c) => ({ ...c, environment: { BIG: 'x'.repeat(3000) } })),
    })
    const big = aServiceSpec({ unit })
    await bed.commit((change) => change.put('app', 'shop', anAppRecord({ spec: { name: 'shop', services: [big] } })))
    const many = Array.from({ length: 600 }, (_, index) => record(`shop/web/${index + 1}/1`, 'n-1', { specHash: big.specHash }))
    await bed.commit((change) => change.put('assignments', 'n-1', someAssignments('n-1', many)))
    const agent = await bed.agent('n-1')
    await bed.clock.until(() => agent.desired.length === 1, 'the set')
    expect(agent.desired[0]).toHaveLength(600)
    expect(agent.link.counters.resyncs).toBe(0)
  })
})

function aUse(instance: string, loadPercent: number) {
  return {
    instance,
    loadPercent,
    demand: null,
    cpuMillis: 1,
    memoryBytes: 1,
    rxBytes: 0,
    txBytes: 0,
    inFlight: 0,
    requests: 1,
    errors: 0,
    denied: 0,
  }
}
