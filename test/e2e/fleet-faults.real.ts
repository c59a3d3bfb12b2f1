/**
 * Whatever dies or talks rubbish while machines are bought and given back, nothing is bought twice and nothing is left. Real engines,
 * machines that join by their user data, `kill -9` of the coordinator, of the machines' agents and of the provider's command at each
 * step of a machine's life. Tests run in order.
 */
import { isDeepStrictEqual } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MachineView } from '../../coordinator/api/schemas.ts'
import { type ClusterBed, type Footprint, figure, startClusterBed, WORKER_IMAGE } from '../lab/cluster-bed.ts'
import type { Host } from '../lab/hosts.ts'
import type { LabMachine } from '../lab/machine-server.ts'
import { isRootOnDebian } from '../lab/packages.ts'

const WEB = 'shop/web'
/** Pools whose command behaves as the name says; each service may use one of them or, at a higher price, `sound`. */
const ODD = ['hangs', 'rubbish', 'full', 'quota', 'later', 'liar'] as const
const MACHINES = 3

describe.skipIf(!isRootOnDebian())('faults while machines are bought and given back', { timeout: 600_000 }, () => {
  let bed: ClusterBed
  let before: Footprint

  beforeAll(async () => {
    const pool = (name: string, priceUsdPerHour: number) => ({
      name,
      provider: name === 'hangs' ? 'hasty' : 'lab',
      offering: 'small',
      priceUsdPerHour,
      max: 8,
    })
    bed = await startClusterBed({
      id: 'rbff',
      net: '10.91.8',
      bridgeNet: '10.96',
      hosts: 1,
      offerings: { small: { cpus: 1, memory: '1G', slots: 50 } },
      hastyTimeout: '2s',
      settings: {
        liveness: { heartbeat: '1s', suspect: '6s', lost: '20s', unknownFor: '60s', reportInterval: '1s' },
        fleet: {
          minNodeAge: '3s',
          downInterval: '1s',
          reapInterval: '1s',
          takeover: '2s',
          orphanGrace: '4s',
          entrySettle: '2s',
          capacityCoolDown: '10m',
          quotaCoolDown: '10m',
          maxParallelDrains: 4,
          // A cloud that refused three times is not waited for; a slow one is: this machine may be busy.
          slowBootFactor: 100,
          minSavingsRatio: 0,
          rebalance: { maxMovesPerHour: 0 },
        },
        pools: [...ODD.map((name) => pool(name, 0.001)), pool('sound', 0.02)],
      },
    })
    const [own] = bed.lab.hosts as [Host]
    await bed.join(own, { cpus: 1, memory: '1G' })
    await bed.until(async () => (await bed.liveNodes()).length === 1, 'the node')
    before = await bed.footprint()
  })

  afterAll(() => bed?.stop())

  it('rows 3, 9: a command that hangs, prints rubbish, has no capacity, no quota, says "later", or fails after it succeeded: all work runs, no machine is lost sight of', async () => {
    const { odd } = bed.cloud.levers
    odd.set('hangs', { kind: 'hangs' })
    odd.set('rubbish', { kind: 'talks rubbish' })
    odd.set('full', { kind: 'refuses', exit: 10, message: 'sold out' })
    odd.set('quota', { kind: 'refuses', exit: 11, message: 'your quota is used up' })
    odd.set('later', { kind: 'refuses', exit: 13, message: 'too many calls' })
    odd.set('liar', { kind: 'fails after success', exit: 1 })
    const startedAt = performance.now()
    await bed.up('odd', oddFile(), false)
    const ready = async () =>
      (await Promise.all(ODD.map((name) => bed.service(`odd/${name}`).catch(() => null)))).filter((one) => one?.ready === 1)
    await bed.until(async () => (await ready()).length === ODD.length, 'all work to run', 400_000)
    figure('six pools that misbehave in six ways → all work runs', startedAt)
    const rests = (await bed.events('pool.cooling-down')).map((event) => event.message).join('\n')
    expect(rests).toMatch(/full rests for .*: lab create: no capacity: sold out/)
    expect(rests).toMatch(/quota rests for .*: lab create: the quota is used up: your quota is used up/)
    const pools = new Map((await bed.nodes()).map((node) => [node.id, node.pool]))
    const ranIn = Object.fromEntries((await bed.instances()).map(({ service, node }) => [service, pools.get(node ?? '')]))
    // Its machine stands whatever the answer was, and is used; who has none at all runs elsewhere.
    expect(ranIn).toMatchObject({ hangs: 'sound', full: 'sound', quota: 'sound', later: 'sound' })
    for (const machine of (await everBought()).filter(({ pool }) => pool === 'full' || pool === 'quota'))
      expect(created().filter((name) => name === machine.name).length, `${machine.pool} is asked once`).toBe(1)
    await bed.until(async () => isDeepStrictEqual(await known(), atTheCloud()), 'coordinator and cloud to know the same', 60_000)
    // Orders that came to nothing so far are carried out now, and given back as well.
    odd.clear()
    await bed.cli('down', 'odd')
    await bed.until(async () => (await bed.machines()).length === 0 && atTheCloud().length === 0, 'all to be given back', 300_000)
  })

  it('rows 1, 2, 3, 15: kill -9 of coordinator, agents and provider command at each step of buying and joining: bought once, all runs', async () => {
    await bed.up('shop', webFile())
    const bought = created().length
    const startedAt = performance.now()
    // Only the intent is stored: no call has an effect.
    let open = bed.cloud.hold('asked')
    await scale(1 + MACHINES)
    await bed.until(() => new Set(created().slice(bought)).size === MACHINES, 'the orders')
    bed.cloud.levers.refuseNext = MACHINES
    await killed(() => bed.cloud.killCommands('create', 1))
    open()
    await bed.until(() => bed.cloud.levers.refuseNext === 0, 'the orders to come to nothing')
    // Made, and nobody hears of it: a command dies, then all.
    open = bed.cloud.hold('made')
    const openBoot = bed.cloud.hold('boot')
    await bed.until(() => mine().length === MACHINES, 'the machines to be made, unanswered', 240_000)
    expect(bed.cloud.killCommands('create', 1)).toBe(1)
    await killed(() => bed.cloud.killCommands('create'))
    open()
    await bed.until(async () => (await bed.machines()).every(({ phase }) => phase !== 'requested'), 'them to be found', 240_000)
    await killed()
    openBoot()
    // Each agent dies as soon as it is there, one with its coordinator; the host's own loop starts it again.
    const [first] = mine() as [LabMachine]
    await bed.until(() => killAgent(first.host), 'the first agent', 240_000, 20)
    await killed()
    for (const { host } of mine().slice(1)) await bed.until(() => killAgent(host), 'its agent', 240_000, 20)
    // Joined, work on its way to it: agent and coordinator die together.
    await bed.until(async () => (await bed.machines()).some(({ phase }) => phase === 'joined'), 'one to join', 240_000, 20)
    await killed(() => mine().forEach(({ host }) => void killAgent(host)))
    await bed.until(async () => (await bed.service(WEB)).ready === 1 + MACHINES, 'all to run', 300_000)
    figure('three bought, everyone killed at each step → all run', startedAt)
    expect(new Set(created().slice(bought)).size, 'every attempt was for one of the same machines').toBe(MACHINES)
    expect(mine().length, 'no machine was made twice').toBe(MACHINES)
    expect(await known()).toEqual(atTheCloud())
    await bed.untilNothingTwice()
  })

  it('rows 1, 8, 15: kill -9 of coordinator, agents and provider command at each step of draining and deleting: all are gone', async () => {
    const startedAt = performance.now()
    const openDelete = bed.cloud.hold('delete')
    const [asked, done] = [bed.cloud.reached('delete'), bed.cloud.reached('deleted')]
    await scale(1)
    await bed.until(async () => (await leaving()).length > 0, 'the nodes to drain', 240_000, 20)
    await killed(() => mine().forEach(({ host }) => void killAgent(host)))
    await bed.until(() => bed.cloud.reached('delete') > asked, 'a deletion to reach the cloud', 240_000)
    bed.cloud.killCommands('delete', 1)
    await killed(() => bed.cloud.killCommands('delete'))
    const openDeleted = bed.cloud.hold('deleted')
    openDelete()
    await bed.until(() => bed.cloud.reached('deleted') > done, 'one to be deleted, unanswered', 240_000)
    bed.cloud.killCommands('delete', 1)
    await killed()
    openDeleted()
    await bed.until(async () => (await bed.machines()).length === 0, 'every machine to be confirmed absent', 240_000)
    figure('three given back, everyone killed at each step → all gone', startedAt)
    await bed.until(
      async () => (await bed.service(WEB)).ready === 1 && (await leaving()).length === 0,
      'one instance on one node',
    )
    expect(await known()).toEqual([])
  })

  it('nothing is left: machines, namespaces, containers, networks, rules and processes are as they were before', async () => {
    await bed.cli('down', 'shop')
    await bed.until(async () => (await bed.instances()).length === 0, 'the app to be gone')
    await bed.until(async () => isDeepStrictEqual(await bed.footprint(), before), 'no trace', 15_000).catch(() => undefined)
    expect(await bed.footprint()).toEqual(before)
  })

  /* ---- what the tests are made of ---- */

  /** kill -9 of the coordinator, together with what else dies then, and its next life. */
  async function killed(together: () => void = () => {}): Promise<void> {
    await bed.coordinator.kill()
    together()
    await bed.coordinator.start()
  }

  /** kill -9 of the agent on a bought host; false while there is none. */
  function killAgent(host: Host): boolean {
    const lines = host.run(['ps', '-eo', 'pid,args', '--no-headers', '-ww']).split('\n')
    const agent = lines.find((line) => /^\s*\d+ \S*rubato-agent --config/.test(line))
    if (agent === undefined) return false
    host.run(['sh', '-c', `kill -9 ${Number.parseInt(agent, 10)} 2>/dev/null || :`])
    return true
  }

  const scale = (replicas: number) => bed.scale(WEB, replicas)
  const created = () => bed.cloud.calls.filter((call) => call.startsWith('create ')).map((call) => call.slice('create '.length))
  /** Machines that exist now. */
  const mine = () => bed.cloud.machines.filter((machine) => !machine.deleted)
  const atTheCloud = () =>
    mine()
      .map((machine) => machine.id)
      .sort()
  /** Machines that the coordinator knows to exist, by the cloud's names for them. */
  const known = async () => (await bed.machines()).flatMap(({ providerId }) => providerId ?? []).sort()
  const everBought = async () => (await bed.coordinator.get<{ items: MachineView[] }>('/v1/machines?all=true&limit=500')).items
  const leaving = async () => (await bed.nodes()).filter((one) => one.availability !== 'active')

  function service(name: string, pools: readonly string[], placement: string): string {
    return `  ${name}:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    expose: ["8080"]
    stop_grace_period: 2s
    healthcheck: { interval: 1s, timeout: 5s, retries: 5, start_period: 30s }
    deploy: { ${placement}resources: { reservations: { cpus: "0.1", memory: 32M } } }
    x-rubato: { health: { http: /health }, drain: 1s${pools.length === 0 ? '' : `, pools: [${pools.join(', ')}]`} }
`
  }

  const oddFile = () => `services:\n${ODD.map((name) => service(name, [name, 'sound'], '')).join('')}`
  /** Not of the pool whose command is given two seconds: calls that are held must not run out of time. */
  const webFile = () =>
    `services:\n${service('web', [], 'placement: { max_replicas_per_node: 1, constraints: ["node.pool != hangs"] }, ')}`
})
