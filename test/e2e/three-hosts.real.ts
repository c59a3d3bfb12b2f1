/**
 * The main job on three hosts of their own (network, process and cgroup namespaces, each with its own Docker engine): a real
 * coordinator, real agents, real containers, real requests. A fourth host is bought and given back. Tests run in order and build on
 * each other; figures are printed as `figure: …`.
 */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EventView, NodeView } from '../../coordinator/api/schemas.ts'
import { type BedContainer, type ClusterBed, figure, say, startClusterBed, WORKER_IMAGE } from '../lab/cluster-bed.ts'
import { type Host, pause } from '../lab/hosts.ts'
import { isRootOnDebian } from '../lab/packages.ts'
import { ask, type RequestsReport, startRequests } from '../lab/requests.ts'

const PORT = 18080
const FRONT = 'shop/front'
const AGENT = { cpus: 2, memory: '2G' }

describe.skipIf(!isRootOnDebian())('three hosts, each with its own engine', { timeout: 240_000 }, () => {
  let bed: ClusterBed
  let key = ''
  const nodeIds = new Map<string, string>()

  beforeAll(async () => {
    bed = await startClusterBed({
      id: 'rbe3',
      net: '10.91.3',
      bridgeNet: '10.93',
      hosts: 3,
      offerings: { small: { cpus: 2, memory: '2G', slots: 50, priceUsdPerHour: 0.02 } },
      settings: {
        // Longer than agents wait between two dials (30 s), as the default is: a coordinator that was away must not take them for lost.
        liveness: { heartbeat: '1s', suspect: '3s', lost: '6s', unknownFor: '60s', reportInterval: '1s' },
        fleet: { minNodeAge: '5s', downInterval: '2s', reapInterval: '3s', takeover: '2s' },
        pools: [{ name: 'extra', provider: 'lab', offering: 'small', min: 0, max: 2 }],
      },
    })
    for (const target of bed.lab.hosts) await bed.join(target, AGENT)
    await bed.until(async () => (await bed.liveNodes()).length === 3, 'three live nodes')
    for (const found of await bed.liveNodes()) nodeIds.set(found.hostname, found.id)
    const made = await bed.cli('keys', 'create', 'e2e', '--role', 'user', '-o', 'json')
    key = (JSON.parse(made) as { key?: string; text?: string }).text ?? (JSON.parse(made) as { key: string }).key
    expect(key).toMatch(/^rbt_/)
  })

  afterAll(() => bed?.stop())

  it('an app file is deployed: ready, reached through every host with a key, refused without (401)', async () => {
    const startedAt = performance.now()
    await bed.up('shop', appFile({}))
    figure('up → 4 instances ready', startedAt)
    for (const target of bed.lab.hosts) {
      const answer = await ask(`http://${target.address}:${PORT}/`, key)
      expect(answer.status, answer.text).toBe(200)
      expect((await ask(`http://${target.address}:${PORT}/`, null)).status).toBe(401)
      expect((await ask(`http://${target.address}:${PORT}/`, `${key.slice(0, -8)}AAAAAAAA`)).status).toBe(401)
    }
    const nodes = new Set((await bed.instances(FRONT)).map((instance) => instance.node))
    expect(nodes.size, 'two instances stand on two nodes').toBe(2)
  })

  it('row 45: a container is not reached from another host, neither directly nor around the key', async () => {
    const [front] = (await bed.instances(FRONT)).filter((instance) => instance.phase === 'ready')
    const own = bed.lab.hosts.find((target) => nodeOf(target.name) === front?.node)
    const other = bed.lab.hosts.find((target) => target !== own)
    if (!front || !own || !other) throw new Error('no instance')
    const container = (await bed.containersOn(own)).find(({ instance }) => instance === front.id)
    if (!container) throw new Error(`no container of ${front.id}`)
    const url = `http://${container.address}:8080/health`
    expect(own.run(['curl', '-s', '--max-time', '3', url]).trim(), 'its own node reaches it').toBe('ok')
    other.run(['ip', 'route', 'replace', `${container.address}/32`, 'via', own.address])
    expect(() => other.run(['curl', '-s', '--max-time', '3', url])).toThrow(/exited (28|7)/)
    other.run(['ip', 'route', 'del', `${container.address}/32`])
    const gateway = front.ports[0]?.gatewayPort
    expect((await ask(`http://${own.address}:${gateway}/`, null)).status).toBe(401)
    expect((await ask(`http://${own.address}:${gateway}/`, key)).status).toBe(200)
  })

  it('a service calls another by its plain Compose name and native port, from each node; strangers cannot call it', async () => {
    const answered = new Set<string>()
    const callers = new Set<string>()
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, round) => ask(`http://${bed.lab.hosts[round % 3]?.address}:${PORT}/call`, key)),
    )
    for (const answer of answers) {
      expect(answer.status, answer.text).toBe(200)
      const { instance, caller } = JSON.parse(answer.text) as { instance: string; caller: string }
      answered.add(instance)
      callers.add(caller)
    }
    expect([...answered].every((id) => id.startsWith('shop/back/'))).toBe(true)
    expect(answered.size, 'both instances of back answered').toBe(2)
    expect([...callers]).toEqual(['shop/front'])
    const [back] = await bed.instances('shop/back')
    const backHost = bed.lab.hosts.find((target) => nodeOf(target.name) === back?.node)
    expect((await ask(`http://${backHost?.address}:${back?.ports[0]?.gatewayPort}/`, null)).status).toBe(401)
  })

  it('custom load scales the service up over the nodes and down again', async () => {
    bed.dial.set(FRONT, 80)
    await bed.until(async () => (await bed.service(FRONT)).loadPercent !== null, 'a load to be known')
    const before = await bed.service(FRONT)
    expect(before.desired).toBe(2)
    const startedAt = performance.now()
    bed.dial.set(FRONT, 360)
    await bed.until(async () => (await bed.service(FRONT)).ready > 2, 'a third instance', 60_000, 50)
    figure('load jump → extra instance ready', startedAt)
    await bed.until(async () => (await bed.service(FRONT)).ready >= 5, 'five instances', 60_000)
    figure('load jump → 5 instances ready', startedAt)
    expect(new Set((await bed.instances(FRONT)).map((instance) => instance.node)).size).toBe(3)
    bed.dial.set(FRONT, 60)
    const fellAt = performance.now()
    await bed.until(async () => (await settled(FRONT)) === 2, 'two instances again', 90_000)
    figure('load fall → 2 instances left', fellAt)
  })

  it('a rolling update under load replaces every instance without one failed request', async () => {
    await settleAt(230, 4)
    const requests = startRequests(everyHost(), key, 300)
    await pause(1_000)
    const startedAt = performance.now()
    await bed.up('shop', appFile({ version: '2' }))
    figure('rolling update under load', startedAt)
    await pause(1_500)
    const report = await requests.stop()
    saw('rolling update', report)
    expect(report.failures).toEqual([])
    expect(report.ok).toBeGreaterThan(1_000)
    const versions = new Set([...report.texts.keys()].map((text) => (JSON.parse(text) as { version: string }).version))
    expect([...versions].sort()).toEqual(['1', '2'])
    for (const target of everyHost()) expect(JSON.parse((await ask(target, key)).text)).toMatchObject({ version: '2' })
  })

  it('row 44: an update that never gets healthy is rolled back, old instances serve all the while', async () => {
    await expectRolledBack(appFile({ version: '3', broken: true }))
  })

  it('row 22: an update whose image cannot be pulled is rolled back, old instances serve all the while', async () => {
    await expectRolledBack(appFile({ version: '4', image: 'rubato-e2e/missing:1' }))
  })

  it('row 1: kill -9 of the coordinator in the middle of scaling: containers stay, requests are served and authorized, all converges', async () => {
    await settleAt(230, 4)
    const before = await bed.allContainers()
    const requests = startRequests(everyHost(), key, 100)
    bed.dial.set(FRONT, 470)
    await bed.until(async () => (await bed.service(FRONT)).desired >= 6, 'the decision to scale', 60_000, 20)
    await bed.coordinator.kill()
    await pause(3_000)
    for (const url of everyHost()) {
      expect((await ask(url, key)).status).toBe(200)
      expect((await ask(url, null)).status).toBe(401)
      expect((await ask(url.replace(/\/$/, '/call'), key)).status).toBe(200)
    }
    const startedAt = performance.now()
    await bed.coordinator.start()
    await bed.until(async () => (await bed.service(FRONT)).ready >= 6, 'six instances', 90_000)
    figure('coordinator started again → scaled out', startedAt)
    const report = await requests.stop()
    saw('coordinator killed', report)
    expect(report.failures).toEqual([])
    expectSame(before, await bed.allContainers())
    await bed.untilNothingTwice()
    await settleAt(230, 4)
  })

  it('row 15: kill -9 of an agent: its containers stay and are adopted, its gateway serves again', async () => {
    const target = await busiest()
    const { name } = target
    const before = await bed.containersOn(target)
    const others = bed.lab.hosts.filter((other) => other !== target)
    const requests = startRequests(
      others.map((other) => `http://${other.address}:${PORT}/`),
      key,
      100,
    )
    await pause(300)
    bed.agent(target)?.kill('SIGKILL')
    await bed.until(() => bed.agent(target)?.alive() === false, 'the agent to die')
    await pause(500)
    const startedAt = performance.now()
    bed.startAgent(target, AGENT)
    await bed.until(
      async () => (await ask(`http://${target.address}:${PORT}/`, key).catch(() => null))?.status === 200,
      'its gateway to serve',
      30_000,
    )
    figure('agent started again → its gateway serves', startedAt)
    await bed.until(async () => {
      const own = (await bed.instances()).filter((instance) => instance.node === nodeOf(name))
      return own.length === before.length && own.every((instance) => instance.routable)
    }, 'its instances to be routable again')
    figure('agent started again → its instances are routable', startedAt)
    // What was under way inside it when it was killed is lost with it; nothing else is.
    saw('agent killed, through the other hosts', await requests.stop())
    expectSame(before, await bed.containersOn(target))
    await bed.untilNothingTwice()
  })

  it('rows 23, 25: a host that is cut off is replaced on the others; when it is back no duplicate is left and survivors stay', async () => {
    // Pinned: copies that run twice for a moment share the dial's load, and would scale.
    await bed.cli('scale', `${FRONT}=4`)
    await bed.until(async () => (await settled(FRONT)) === 4, 'four instances')
    const cut = await busiest()
    const others = bed.lab.hosts.filter((target) => target !== cut)
    const survivors = (await Promise.all(others.map(bed.containersOn))).flat()
    const wanted = (await bed.service(FRONT)).desired
    const requests = startRequests(
      others.map((target) => `http://${target.address}:${PORT}/`),
      key,
      100,
    )
    await pause(1_000)
    const startedAt = performance.now()
    cut.cut()
    await bed.until(async () => (await node(cut.name)).liveness === 'lost', 'the host to be lost', 30_000)
    figure('cut → lost', startedAt)
    await bed.until(
      async () => {
        const running = (await bed.instances()).filter((instance) => instance.routable && instance.node !== nodeOf(cut.name))
        return running.length >= wanted + 2
      },
      'everything to run on the others',
      60_000,
    )
    figure('cut → replaced on the others', startedAt)
    // What was under way to the host is lost with it; this tells how long that lasts.
    saw('a host cut off, through the others', await requests.stop())
    for (const target of others) expect((await ask(`http://${target.address}:${PORT}/call`, key)).status).toBe(200)
    expectSame(survivors, (await Promise.all(others.map(bed.containersOn))).flat())
    const healedAt = performance.now()
    cut.heal()
    await bed.until(async () => (await node(cut.name)).liveness === 'live', 'the host to be back', 60_000)
    figure('healed → live', healedAt)
    await bed.until(
      async () => (await bed.instances()).every((instance) => instance.goal === 'run' && instance.routable),
      'no instance to be left over',
      60_000,
    )
    figure('healed → no duplicate left', healedAt)
    expectSame(survivors, (await Promise.all(others.map(bed.containersOn))).flat())
    await bed.untilNothingTwice()
  })

  it('ps, logs, explain and nodes tell what runs; a drain moves instances without a failed request; uncordon takes the node back', async () => {
    expect(await bed.cli('ps', 'shop')).toMatch(/shop\/front\/\d+\/\d+ +n-\S+ +ready/)
    expect(await bed.cli('logs', FRONT, '--tail', '20')).toMatch(/shop\/front\/\d+\/\d+ serves version 2/)
    expect(await bed.cli('explain', FRONT)).toMatch(/shop\/front/)
    expect(await bed.cli('nodes')).toMatch(/h1/)
    const target = (await busiest()).name
    const requests = startRequests(everyHost(), key, 300)
    await pause(500)
    const startedAt = performance.now()
    await bed.cli('node', 'drain', nodeOf(target), '--reason', 'test')
    await bed.until(async () => (await node(target)).availability === 'drained', `${target} to be drained`, 60_000)
    figure('drain of a node under load', startedAt)
    expect((await bed.containersOn(bed.host(target))).length).toBe(0)
    await pause(500)
    const report = await requests.stop()
    saw('drain', report)
    expect(report.failures).toEqual([])
    await bed.cli('node', 'uncordon', nodeOf(target))
    expect((await node(target)).availability).toBe('active')
    await bed.cli('scale', `${FRONT}=auto`)
    expect((await bed.service(FRONT)).pinned).toBe(null)
  })

  it('a fourth host becomes a node by its user data alone, bought because work did not fit, and is given back', async () => {
    const startedAt = performance.now()
    await bed.up('batch', batchFile(10), false)
    await bed.until(
      async () => (await bed.machines()).some((machine) => machine.phase !== 'gone'),
      'a machine to be bought',
      30_000,
    )
    expect(await bed.cli('explain', 'batch/job')).toMatch(/batch\/job/)
    await bed.until(() => bed.cloud.machines.length > 0, 'the order to reach the cloud', 60_000)
    const bootedAt = performance.now()
    figure('work does not fit → the host has booted and has its user data', startedAt)
    await bed.until(async () => (await bed.liveNodes()).length === 4, 'the fourth host to join', 90_000)
    figure('user data → joined and live', bootedAt)
    await bed.until(async () => (await bed.service('batch/job')).ready === 10, 'all the work to run', 60_000)
    figure('work does not fit → all of it runs', startedAt)
    const bought = bed.cloud.machines[0]
    if (!bought) throw new Error('nothing was bought')
    expect(bought.host.run(['sh', '-c', 'ls /etc/rubato; cat /etc/rubato/agent.yaml'])).not.toMatch(/rbtj_/)
    expect((await ask(`http://${bought.host.address}:${PORT}/`, key)).status, 'its gateway serves published ports').toBe(200)
    const fellAt = performance.now()
    await bed.cli('scale', 'batch/job=1')
    await bed.until(
      async () => (await bed.machines()).every((machine) => machine.phase === 'gone'),
      'the machine to be given back',
      120_000,
    )
    figure('work gone → machine given back', fellAt)
    expect(bed.cloud.machines.filter((machine) => !machine.deleted)).toEqual([])
    expect((await bed.liveNodes()).length).toBe(3)
    expect((await bed.service('batch/job')).ready).toBe(1)
  })

  it('down removes the apps and leaves no container behind', async () => {
    await bed.cli('down', 'batch')
    await bed.cli('down', 'shop')
    await bed.until(async () => (await bed.allContainers()).length === 0, 'every container to be gone', 60_000)
    expect(await bed.instances()).toEqual([])
  })

  /* ---- what the tests are made of ---- */

  /** Sets the demand and waits until that many instances run, none more. */
  async function settleAt(totalPercent: number, count: number): Promise<void> {
    bed.dial.set(FRONT, totalPercent)
    await bed.until(async () => (await settled(FRONT)) === count, `${count} instances`, 90_000)
  }

  function appFile(change: { version?: string; broken?: boolean; image?: string }): string {
    const update = '{ parallelism: 1, monitor: 1s, failure_action: rollback }'
    const health = '{ interval: 1s, timeout: 2s, retries: 3, start_period: 10s, start_interval: 200ms }'
    return `services:
  front:
    image: ${change.image ?? WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    environment: { VERSION: "${change.version ?? '1'}", BACK: "http://back:8080/", DIAL: "${bed.dial.url}", BROKEN: "${change.broken ? 1 : 0}" }
    ports: [{ target: 8080, published: "${PORT}", app_protocol: http }]
    depends_on: { back: { condition: service_healthy } }
    stop_grace_period: 5s
    healthcheck: ${health}
    deploy:
      resources: { reservations: { cpus: "0.2", memory: 64M } }
      update_config: ${update}
    x-rubato:
      health: { http: /health }
      access: { allow: ["role:user"] }
      scale: { min: 2, max: 8, load: custom, window: 3s, downWindow: 6s }
      drain: 5s
      progressDeadline: 8s
  back:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    expose: ["8080"]
    stop_grace_period: 5s
    healthcheck: ${health}
    deploy:
      replicas: 2
      resources: { reservations: { cpus: "0.1", memory: 64M } }
    x-rubato: { protocol: http, health: { http: /health }, access: { allow: [front] }, drain: 5s }
`
  }

  function batchFile(replicas: number): string {
    return `services:
  job:
    image: ${WORKER_IMAGE}
    command: ["/usr/bin/node", "/app.mjs"]
    stop_grace_period: 1s
    deploy: { replicas: ${replicas}, resources: { reservations: { cpus: "0.6", memory: 64M } } }
    x-rubato: { drain: 1s }
`
  }

  async function expectRolledBack(text: string): Promise<void> {
    await settleAt(230, 4)
    // Pinned: on a busy machine a late report looks like more load for the others, and to scale down may take an old instance.
    await bed.cli('scale', `${FRONT}=4`)
    const before = await bed.instances(FRONT)
    const requests = startRequests(everyHost(), key, 200)
    const startedAt = performance.now()
    writeFileSync(join(bed.dir, 'bad.yaml'), text)
    const { code, stderr } = await bed.coordinator.cli(['up', '-f', join(bed.dir, 'bad.yaml'), '-p', 'shop', '--timeout', '120'])
    expect(code, stderr).not.toBe(0)
    await bed.until(
      async () => {
        const now = await bed.instances(FRONT)
        return now.length === before.length && now.every((instance) => instance.routable)
      },
      'the rollback to be complete',
      60_000,
    )
    figure('bad update → rolled back', startedAt)
    const report = await requests.stop()
    saw('bad update', report)
    expect(report.failures).toEqual([])
    for (const answer of report.texts.keys()) expect(JSON.parse(answer)).toMatchObject({ version: '2' })
    const { items } = await bed.coordinator.get<{ items: EventView[] }>('/v1/events?limit=200')
    expect(
      items.some((event) => /roll/i.test(event.type) && event.severity !== 'info'),
      'an event says so',
    ).toBe(true)
    const now = await bed.instances(FRONT)
    expect(
      now.filter((instance) => before.some((old) => old.id === instance.id)).length,
      'no old instance was stopped for it',
    ).toBe(before.length)
    await bed.cli('scale', `${FRONT}=auto`)
  }

  const everyHost = () => bed.lab.hosts.slice(0, 3).map((target) => `http://${target.address}:${PORT}/`)
  const nodeOf = (name: string) => nodeIds.get(name) ?? ''
  const node = (name: string) => bed.coordinator.get<NodeView>(`/v1/nodes/${nodeOf(name)}`)

  /** How many instances there are once none starts or stops; NaN before. */
  async function settled(id: string): Promise<number> {
    const [now, all] = [await bed.service(id), await bed.instances(id)]
    return all.length === now.desired && now.ready === now.desired ? all.length : Number.NaN
  }

  async function busiest(): Promise<Host> {
    const counts = await Promise.all(
      bed.lab.hosts.map(async (target) => ({ target, count: (await bed.containersOn(target)).length })),
    )
    const [first] = counts.sort((a, b) => b.count - a.count)
    if (!first || first.count === 0) throw new Error('nothing runs')
    return first.target
  }

  /** Each of `before` still runs: same container, same start. */
  function expectSame(before: readonly BedContainer[], after: readonly BedContainer[]): void {
    const now = new Map(after.map((container) => [container.instance, container]))
    for (const container of before) expect(now.get(container.instance), container.instance).toEqual(container)
  }
})

function saw(what: string, report: RequestsReport): void {
  say(`figure: ${what}: ${report.ok} requests ok (${report.perSecond}/s), ${report.failed} failed`)
  for (const failure of report.failures) say(`  ${failure}`)
}
