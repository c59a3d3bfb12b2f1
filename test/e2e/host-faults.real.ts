/**
 * What happens to the hosts themselves: an engine that dies and comes back under its agent, a strict singleton that is cut off, an
 * agent whose disk is full, wall clocks that jump. Three hosts with engines of their own. Tests run in order.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { InstanceView } from '../../coordinator/api/schemas.ts'
import { type AgentOptions, type ClusterBed, figure, startClusterBed, WORKER_IMAGE } from '../lab/cluster-bed.ts'
import { type FakeClock, fakeClock } from '../lab/fake-clock.ts'
import { type Host, pause } from '../lab/hosts.ts'
import { isRootOnDebian } from '../lab/packages.ts'
import { ask } from '../lab/requests.ts'

const PORT = 18080
const WEB = 'shop/web'
const ONE = 'one/only'
const AGENT: AgentOptions = { cpus: 2, memory: '2G' }
const HOUR_S = 3_600

describe.skipIf(!isRootOnDebian())('faults of hosts', { timeout: 600_000 }, () => {
  let bed: ClusterBed
  let key = ''
  const clocks = new Map<string, FakeClock>()
  const nodeIds = new Map<string, string>()

  beforeAll(async () => {
    const coordinatorClock = fakeClock('coordinator')
    clocks.set('coordinator', coordinatorClock)
    bed = await startClusterBed({
      id: 'rbhf',
      net: '10.91.9',
      bridgeNet: '10.97',
      hosts: 3,
      offerings: {},
      coordinatorEnvironment: coordinatorClock.environment,
      settings: {
        liveness: { heartbeat: '1s', suspect: '3s', lost: '6s', unknownFor: '60s', reportInterval: '1s' },
        fleet: { rebalance: { maxMovesPerHour: 0 } },
      },
    })
    const [h1, h2, h3] = bed.lab.hosts as [Host, Host, Host]
    // One whose disk can be filled, one whose clock can be moved.
    h2.run(['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', '/var/lib/rubato-agent'])
    clocks.set('h3', fakeClock('h3'))
    await bed.join(h1, AGENT)
    await bed.join(h2, AGENT)
    await bed.join(h3, { ...AGENT, environment: clocks.get('h3')?.environment ?? {} })
    await bed.until(async () => (await bed.liveNodes()).length === 3, 'three live nodes')
    for (const found of await bed.liveNodes()) nodeIds.set(found.hostname, found.id)
    key = await newKey('first')
    await bed.up('shop', webFile())
  })

  afterAll(async () => {
    await bed?.stop()
    for (const clock of clocks.values()) clock.remove()
  })

  it('rows 19, 20: an engine dies under its agent: nothing is lost or replaced; back again it has killed what ran, and that is started once more', async () => {
    const [host] = bed.lab.hosts as [Host]
    const before = await bed.instances(WEB)
    const others = (await Promise.all(bed.lab.hosts.slice(1).map(bed.containersOn))).flat()
    host.killEngine()
    await pause(8_000)
    const names = (await bed.instances(WEB)).map((instance) => instance.id)
    expect(names, 'no instance was replaced').toEqual(before.map((instance) => instance.id))
    const startedAt = performance.now()
    await host.startEngine()
    await bed.until(async () => (await routable()).length === before.length, 'all to serve again', 240_000)
    figure('engine started again → its instances serve', startedAt)
    expect((await bed.instances(WEB)).map((instance) => instance.id)).toEqual(before.map((instance) => instance.id))
    expect((await Promise.all(bed.lab.hosts.slice(1).map(bed.containersOn))).flat()).toEqual(others)
    // Gateways hear of the addresses that the containers have now a moment later.
    for (const target of bed.lab.hosts)
      await bed.until(async () => (await status(target, key)) === 200, `${target.name} to serve`)
    await bed.untilNothingTwice()
  })

  it('row 36: an agent whose disk is full serves with the keys that it has, acknowledges none, and takes them when there is room', async () => {
    const [, host] = bed.lab.hosts as [Host, Host]
    host.run(['sh', '-c', 'dd if=/dev/zero of=/var/lib/rubato-agent/filler bs=64k 2>/dev/null; df /var/lib/rubato-agent'])
    const second = await newKey('second')
    const others = bed.lab.hosts.filter((target) => target !== host)
    for (const target of others)
      await bed.until(async () => (await status(target, second)) === 200, `the new key to be known at ${target.name}`)
    for (let round = 0; round < 5; round += 1) {
      expect(await status(host, key), 'the old key serves').toBe(200)
      expect(await status(host, null)).toBe(401)
      await pause(200)
    }
    expect((await bed.instances(WEB)).filter((instance) => instance.routable).length).toBe(3)
    host.run(['rm', '/var/lib/rubato-agent/filler'])
    const freedAt = performance.now()
    await bed.until(async () => (await status(host, second)) === 200, 'the new key to be known there, too')
    figure('room again on the agent’s disk → newest keys', freedAt)
  })

  it('row 37: wall clocks of the coordinator and of an agent jump by an hour, forward and back: nothing is lost, replaced or refused', async () => {
    const before = await bed.allContainers()
    for (const offsetS of [HOUR_S, 0, -HOUR_S, 0])
      for (const clock of clocks.values()) {
        clock.set(offsetS)
        await pause(1_500)
        const { nowMs } = await bed.coordinator.get<{ nowMs: number }>('/v1/status')
        const coordinatorS = (nowMs - Date.now()) / 1000
        if (clock === clocks.get('coordinator')) expect(Math.abs(coordinatorS - offsetS), 'it did jump').toBeLessThan(60)
        expect((await bed.nodes()).map((node) => node.liveness)).toEqual(['live', 'live', 'live'])
        for (const target of bed.lab.hosts) await served(target)
      }
    expect(await bed.allContainers()).toEqual(before)
    expect((await routable()).length).toBe(3)
    await bed.untilNothingTwice()
  })

  it('row 24: a strict singleton is cut off: its agent stops it, only then another starts, and at no moment two run', async () => {
    await bed.up('one', strictFile())
    const [only] = await bed.instances(ONE)
    const cut = bed.lab.hosts.find((target) => nodeIds.get(target.name) === only?.node)
    if (!cut) throw new Error('it runs nowhere')
    const cutAt = performance.now()
    cut.cut()
    const runningOn = async (target: Host) =>
      (await bed.containersOn(target)).filter((container) => container.instance.startsWith(`${ONE}/`))
    let [stoppedAt, startedAt] = [0, 0]
    while (startedAt === 0) {
      const counts = await Promise.all(bed.lab.hosts.map(async (target) => ({ target, count: (await runningOn(target)).length })))
      expect(
        counts.reduce((sum, { count }) => sum + count, 0),
        'at most one runs',
      ).toBeLessThanOrEqual(1)
      if (stoppedAt === 0 && counts.every(({ count }) => count === 0)) stoppedAt = performance.now()
      if (counts.some(({ target, count }) => target !== cut && count > 0)) startedAt = performance.now()
      if (performance.now() - cutAt > 300_000) throw new Error('no other started')
      await pause(100)
    }
    figure('cut → strict singleton stopped by its agent', cutAt, stoppedAt)
    figure('cut → its replacement runs', cutAt, startedAt)
    cut.heal()
    await bed.until(async () => (await bed.liveNodes()).length === 3, 'the host to be back', 120_000)
    await bed.until(
      async () => (await bed.instances(ONE)).filter(({ routable }) => routable).length === 1,
      'one to serve',
      120_000,
    )
    await bed.untilNothingTwice()
  })

  /* ---- what the tests are made of ---- */

  async function newKey(name: string): Promise<string> {
    const made = JSON.parse(await bed.cli('keys', 'create', name, '--role', 'user', '-o', 'json')) as {
      text?: string
      key?: string
    }
    return made.text ?? made.key ?? ''
  }

  const status = async (target: Host, credential: string | null) =>
    (await ask(`http://${target.address}:${PORT}/`, credential).catch(() => null))?.status ?? 0
  const served = async (target: Host) => expect(await status(target, key), `${target.name} serves`).toBe(200)
  const routable = async (): Promise<readonly InstanceView[]> =>
    (await bed.instances(WEB)).filter((instance) => instance.routable)

  const HEALTH = 'healthcheck: { interval: 1s, timeout: 2s, retries: 3, start_period: 20s }'
  const webFile = () => `services:
  web:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    ports: [{ target: 8080, published: "${PORT}", app_protocol: http }]
    stop_grace_period: 2s
    ${HEALTH}
    deploy:
      replicas: 3
      placement: { max_replicas_per_node: 1 }
      resources: { reservations: { cpus: "0.2", memory: 64M } }
    x-rubato: { health: { http: /health }, access: { allow: ["role:user"] }, drain: 1s }
`
  const strictFile = () => `services:
  only:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    expose: ["8080"]
    stop_grace_period: 1s
    ${HEALTH}
    deploy: { resources: { reservations: { cpus: "0.2", memory: 64M } } }
    x-rubato: { singleton: { after: 15s }, health: { http: /health }, drain: 0s }
`
})
