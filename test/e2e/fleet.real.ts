/**
 * The fleet on real engines: one host of its own and machines of an `exec` provider, each with its own Docker engine, joined by
 * their user data alone. A node takes one instance, so counts say how many machines there must be. The cloud is made
 * slow, made to fail, and the coordinator is killed at every step of a machine's life. Tests run in order and build on each other;
 * figures are printed as `figure: …`.
 */
import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EventView, InstanceView, MachineView, NodeView, ServiceView } from '../../coordinator/api/schemas.ts'
import { buildAgentIfStale } from '../lab/agent-binary.ts'
import { type CoordinatorProcess, startCoordinator } from '../lab/coordinator.ts'
import { engineRequest, importTar } from '../lab/engine-api.ts'
import { createHosts, type Host, type HostProcess, type Hosts, until as untilPlain } from '../lab/hosts.ts'
import { type LoadDial, startLoadDial } from '../lab/load-dial.ts'
import { type MachineServer, startMachineServer } from '../lab/machine-server.ts'
import { NODE_IMAGE_COMMAND, writeNodeRootfs } from '../lab/node-image.ts'
import { installPackages, isRootOnDebian } from '../lab/packages.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const IMAGE = 'rubato-e2e/worker:1'
const ID = 'rbfl'
const WEB = 'shop/web'

describe.skipIf(!isRootOnDebian())('the fleet, machines with engines of their own', { timeout: 240_000 }, () => {
  let dir = ''
  let lab: Hosts
  let coordinator: CoordinatorProcess
  let dial: LoadDial
  let cloud: MachineServer
  let agent: HostProcess

  beforeAll(async () => {
    await installPackages(say)
    const binary = buildAgentIfStale(say)
    dir = mkdtempSync(join(tmpdir(), 'rubato-fleet-'))
    const image = join(dir, 'image.tar')
    const binaries = join(dir, 'dist')
    mkdirSync(binaries)
    copyFileSync(binary, join(binaries, 'rubato-agent-linux-x64'))
    writeNodeRootfs(image, join(ROOT, 'test', 'lab', 'worker.mjs'))
    const hasImage = (target: Host) => importTar(target.dockerSocket, image, IMAGE, NODE_IMAGE_COMMAND)
    lab = await createHosts({ id: ID, net: '10.91.6', bridgeNet: '10.94', count: 1, dir: join(dir, 'hosts') })
    dial = await startLoadDial(lab.rootAddress, 7800)
    cloud = await startMachineServer(lab, join(dir, 'cloud.sock'), hasImage)
    const pool = (name: string, priceUsdPerHour: number) => ({
      name,
      provider: 'lab',
      offering: 'small',
      priceUsdPerHour,
      max: 8,
    })
    coordinator = await startCoordinator({
      dir: join(dir, 'coordinator'),
      host: lab.rootAddress,
      port: 7600,
      catalogPort: 7650,
      dnsPort: 7653,
      settings: {
        agentBinaryDir: binaries,
        budgetUsdPerMonth: 50,
        liveness: { heartbeat: '1s', suspect: '6s', lost: '20s', unknownFor: '60s', reportInterval: '1s' },
        fleet: {
          minNodeAge: '3s',
          downInterval: '1s',
          reapInterval: '2s',
          takeover: '2s',
          orphanGrace: '4s',
          entrySettle: '8s',
          capacityCoolDown: '10m',
          maxParallelDrains: 4,
          // The pace of these machines is the test's own: a busy test machine must not look like a slow cloud.
          slowBootFactor: 0,
          rebalance: { maxMovesPerHour: 0 },
        },
        providers: {
          lab: { kind: 'exec', command: cloud.command, offerings: { small: { cpus: 1, memory: '1G', slots: 50 } } },
        },
        pools: [pool('cheap', 0.02), pool('dear', 0.03), pool('gold', 100)],
      },
    })
    const [own] = lab.hosts as [Host]
    await hasImage(own)
    const token = (await cli('token', 'join')).trim().split('\n').at(-1) ?? ''
    writeFileSync(join(own.dir, 'join.token'), token, { mode: 0o600 })
    const settings = {
      'state-dir': '/var/lib/rubato-agent',
      'token-file': join(own.dir, 'join.token'),
      urls: coordinator.url,
      engine: 'docker',
      'capacity-cpus': '1',
      'capacity-memory': '1G',
    }
    agent = own.start('agent', [
      process.execPath,
      join(ROOT, 'agent', 'main.ts'),
      ...Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]),
    ])
    await until(async () => (await liveNodes()).length === 1, 'the first node')
    await up('shop', webFile())
    await until(async () => (await service(WEB)).loadPercent !== null, 'a load to be known')
  })

  afterAll(async () => {
    agent?.kill('SIGTERM')
    await coordinator?.stop()
    await cloud?.stop()
    await dial?.stop()
    if (process.env.KEEP_LOGS)
      execFileSync('sh', [
        '-c',
        'mkdir -p "$1"; cp "$0"/coordinator/coordinator.log "$1"/; for d in "$0"/hosts/*; do for f in agent.log user-data.log log/rubato-agent.log; do [ ! -f $d/$f ] || cp $d/$f "$1"/$(basename $d)-$(basename $f); done; done',
        dir,
        process.env.KEEP_LOGS,
      ])
    await lab?.down()
    if (dir) rmSync(dir, { recursive: true, force: true })
  })

  it('V10: load rises, no node has room: a machine is bought, joins by its user data, and the extra instance is ready', async () => {
    const jumpedAt = performance.now()
    dial.set(WEB, 95)
    await until(() => cloud.calls.some((call) => call.startsWith('create')), 'the order', 60_000, 20)
    const orderedAt = performance.now()
    await until(async () => (await liveNodes()).length === 2, 'the machine to join', 120_000, 50)
    const joinedAt = performance.now()
    await until(async () => (await service(WEB)).ready === 2, 'the extra instance', 60_000, 50)
    const readyAt = performance.now()
    figure('load jump → machine ordered', jumpedAt, orderedAt)
    figure('its own boot: order → host up with its engine and user data → joined', orderedAt, joinedAt)
    figure('joined → the extra instance is ready', joinedAt, readyAt)
    figure('load jump → extra instance ready, VM-bound', jumpedAt, readyAt)
    await scale(2)
  })

  it('a burst that needs two machines buys two, once, however long the cloud takes to answer', async () => {
    const gate = closed()
    cloud.levers.createGate = gate.promise
    const startedAt = performance.now()
    await scale(4)
    await until(() => creates().length === 3, 'two orders to reach the cloud')
    // Several passes of the fleet go by while the cloud says nothing.
    const lists = cloud.calls.filter((call) => call.startsWith('list')).length
    await until(() => cloud.calls.filter((call) => call.startsWith('list')).length >= lists + 2, 'two more looks at the cloud')
    expect((await events('machine.requested')).length).toBe(3)
    expect(await cli('explain', WEB)).toMatch(/waits for machine m-/)
    cloud.levers.createGate = null
    gate.open()
    await until(async () => (await service(WEB)).ready === 4, 'the burst to run', 120_000)
    figure('burst of two → both run', startedAt)
    expect((await events('machine.requested')).length).toBe(3)
    expect(cloud.machines.length).toBe(3)
  })

  it('row 9: a pool without capacity rests, the next one is bought from, and the failed order is not repeated', async () => {
    cloud.levers.refuse.set('cheap', { exit: 10, message: 'sold out' })
    const before = creates().length
    const startedAt = performance.now()
    await scale(5)
    await until(async () => (await service(WEB)).ready === 5, 'the instance to run', 120_000)
    figure('cheap pool sold out → instance runs on the next pool', startedAt)
    expect(creates().length - before, 'one order refused, one carried out').toBe(2)
    expect(cloud.machines.at(-1)?.pool).toBe('dear')
    const [rest] = await events('pool.cooling-down')
    expect(rest?.message).toMatch(/cheap rests for .* sold out/)
    cloud.levers.refuse.clear()
  })

  it('M6: beyond the budget nothing is bought; the event and explain give the sum', async () => {
    const before = creates().length
    await up('gold', goldFile(), false)
    await until(async () => (await events('fleet.budget-reached')).length === 1, 'the refusal')
    const sum = /one more gold \(\$100\.00\) would bring this month to \$\d+\.\d\d, over the budget of \$50\.00/
    expect((await events('fleet.budget-reached'))[0]?.message).toMatch(sum)
    expect(await cli('explain', 'gold/web')).toMatch(sum)
    expect(creates().length).toBe(before)
    await cli('down', 'gold')
    await until(async () => (await instances()).length === 5, 'it to be gone')
  })

  it('returning demand takes back the node that is being given back, and buys nothing', async () => {
    const before = creates().length
    await scale(4)
    await until(async () => (await leaving()).length === 1, 'a node to be given back', 90_000, 50)
    const [back] = await leaving()
    const startedAt = performance.now()
    await scale(5)
    await until(async () => (await service(WEB)).ready === 5 && (await leaving()).length === 0, 'all to run again', 90_000, 50)
    figure('demand returns → runs on the node taken back', startedAt)
    expect((await liveNodes()).some((node) => node.id === back?.id)).toBe(true)
    expect((await events('node.activated')).some((event) => event.subject === back?.id)).toBe(true)
    expect(creates().length).toBe(before)
    expect((await machines()).filter((machine) => machine.phase === 'joined').length).toBe(4)
  })

  it('rows 1, 2, 3: kill -9 before the cloud call, after a create with lost reply, and while the machine boots: one machine, which joins', async () => {
    const startedAt = performance.now()
    const [before, create, boot] = [creates().length, closed(), closed()]
    cloud.levers.createGate = create.promise
    cloud.levers.bootGate = boot.promise
    await scale(6)
    await until(() => creates().length > before, 'the order')
    await coordinator.kill()
    // What was under way reaches the cloud as nothing: the intent alone is left.
    cloud.levers.refuseNext = 1
    cloud.levers.createGate = null
    create.open()
    await until(() => cloud.levers.refuseNext === 0, 'the order to come to nothing')
    expect(cloud.machines.length).toBe(4)

    cloud.levers.loseReplies = 1
    await coordinator.start()
    await until(() => cloud.levers.loseReplies === 0, 'the machine to be made, unanswered', 120_000)
    await coordinator.kill()

    await coordinator.start()
    const bought = cloud.machines.at(-1)
    const known = async () => (await machines()).find((machine) => bought?.name.endsWith(machine.id))
    await until(async () => ['booting', 'joining'].includes((await known())?.phase ?? ''), 'the machine to be found', 60_000)
    await coordinator.kill()
    cloud.levers.bootGate = null
    boot.open()
    await coordinator.start()
    await until(async () => (await service(WEB)).ready === 6, 'the sixth instance', 120_000)
    figure('coordinator killed three times while it buys → instance runs', startedAt)
    expect(cloud.machines.filter((machine) => !machine.deleted).length, 'no machine was made twice').toBe(5)
    expect(new Set(creates().slice(before)).size, 'every attempt was for the same machine').toBe(1)
    expect((await machines()).filter((machine) => machine.phase === 'joined').length).toBe(5)
  })

  it('rows 1, 8: kill -9 while a node drains and while its machine is deleted: it is gone all the same', async () => {
    const [gate, before] = [closed(), deletes().length]
    cloud.levers.deleteGate = gate.promise
    await scale(5)
    await until(async () => (await leaving()).length === 1, 'a node to drain', 90_000, 50)
    await coordinator.kill()
    await coordinator.start()
    await until(() => deletes().length > before, 'the deletion to reach the cloud', 90_000)
    await coordinator.kill()
    cloud.levers.deleteGate = null
    gate.open()
    await coordinator.start()
    await until(
      async () => (await machines()).filter((machine) => machine.phase === 'joined').length === 4,
      'four machines',
      90_000,
    )
    await until(async () => (await service(WEB)).ready === 5, 'five instances', 90_000)
    await until(async () => (await machines()).length === 4, 'the fifth machine to be confirmed absent', 90_000)
    expect(cloud.machines.filter((machine) => !machine.deleted).length).toBe(4)
  })

  it('V11: demand falls: everything moves to one node, every machine is given back, and nothing is left of them', async () => {
    const startedAt = performance.now()
    await scale(1)
    await until(async () => (await machines()).length === 0, 'every machine to be gone', 180_000)
    figure('demand falls from five to one → one node, four machines gone', startedAt)
    await until(async () => (await instances()).every((one) => one.routable), 'the last instance', 60_000)
    expect((await instances()).length).toBe(1)
    expect((await liveNodes()).length).toBe(1)
    expect(cloud.machines.every((machine) => machine.deleted && !machine.host.running)).toBe(true)
    expect(namespaces()).toEqual([`${ID}-h1`, `${ID}-sw`])
    const [own] = lab.hosts as [Host]
    const containers = (await engineRequest(own.dockerSocket, 'GET', '/containers/json?all=1')) as { Id: string }[]
    expect(containers.length).toBe(1)
    expect((await events('machine.requested')).length).toBe(6)
    figureText(`machines ordered: ${(await events('machine.requested')).length}, made: ${cloud.machines.length}, left: 0`)
  })

  /* ---- what the tests are made of ---- */

  /** As the lab's, and tells what there was when the wait was in vain. */
  async function until(
    condition: () => boolean | Promise<boolean>,
    what: string,
    limitMs = 60_000,
    everyMs = 100,
  ): Promise<void> {
    try {
      await untilPlain(condition, what, limitMs, everyMs)
    } catch (error) {
      for (const args of [['ps'], ['pools', '-a'], ['nodes'], ['events', '--tail', '30']])
        say((await coordinator.cli(args)).stdout)
      say(cloud.calls.filter((call) => !call.startsWith('list')).join(', '))
      throw error
    }
  }

  async function cli(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await coordinator.cli(args)
    if (code !== 0) throw new Error(`rubato ${args.join(' ')} exited ${code}: ${stderr}${stdout}`)
    return stdout
  }

  async function up(name: string, text: string, wait = true): Promise<void> {
    const file = join(dir, `${name}.yaml`)
    writeFileSync(file, text)
    await cli('up', '-f', file, '-p', name, ...(wait ? ['--timeout', '120'] : ['--detach']))
  }

  /** Pins the count: what follows must not depend on how busy the test machine is. */
  async function scale(replicas: number): Promise<void> {
    await coordinator.send('POST', `/v1/services/${WEB}/scale`, { replicas })
  }

  const webFile = () => `services:
  web:
    image: ${IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    environment: { DIAL: "${dial.url}" }
    expose: ["8080"]
    stop_grace_period: 2s
    healthcheck: { interval: 1s, timeout: 5s, retries: 5, start_period: 30s, start_interval: 200ms }
    deploy: { placement: { max_replicas_per_node: 1 }, resources: { reservations: { cpus: "0.2", memory: 64M } } }
    x-rubato:
      health: { http: /health }
      scale: { min: 1, max: 8, load: custom, window: 3s, predict: off }
      drain: 1s
`
  const goldFile = () => `services:
  web:
    image: ${IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    deploy: { resources: { reservations: { cpus: "0.2", memory: 64M } } }
    x-rubato: { pools: [gold] }
`

  const deletes = () => cloud.calls.filter((call) => call.startsWith('delete'))
  const creates = () => cloud.calls.filter((call) => call.startsWith('create'))
  const nodes = async () => (await coordinator.get<{ items: NodeView[] }>('/v1/nodes')).items
  const liveNodes = async () => (await nodes()).filter((one) => one.liveness === 'live')
  const leaving = async () => (await nodes()).filter((one) => one.availability !== 'active')
  const service = (id: string) => coordinator.get<ServiceView>(`/v1/services/${id}`)
  /** Those that are not gone. */
  const machines = async () => (await coordinator.get<{ items: MachineView[] }>('/v1/machines?limit=500')).items
  const instances = async () => (await coordinator.get<{ items: InstanceView[] }>('/v1/instances?limit=500')).items
  const events = async (type: string) =>
    (await coordinator.get<{ items: EventView[] }>('/v1/events?limit=500')).items.filter((event) => event.type === type)
})

/** Something to wait for until the test lets it happen. */
function closed(): { readonly promise: Promise<void>; open(): void } {
  let open: () => void = () => {}
  const promise = new Promise<void>((resolve) => {
    open = resolve
  })
  return { promise, open }
}

function namespaces(): readonly string[] {
  return execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.split(' ')[0] ?? '')
    .filter((name) => name.startsWith(`${ID}-`))
    .sort()
}

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

function figure(name: string, fromMs: number, toMs = performance.now()): void {
  figureText(`${name}: ${((toMs - fromMs) / 1000).toFixed(2)} s`)
}

function figureText(text: string): void {
  say(`figure: ${text}`)
}
