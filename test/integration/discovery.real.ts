/**
 * Discovery on real parts: what runs is in a real Consul and in the embedded catalog when it is ready, and leaves both before it
 * stops answering; containers that Rubato did not start too. A real Prometheus and dig read the embedded catalog. Issue 2, line 5.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { quantile } from '../bench/statistics.ts'
import { pause, until } from '../lab/hosts.ts'
import { installConsul, installPrometheus, isRootOnDebian } from '../lab/packages.ts'
import {
  askRepeatedly,
  CATALOG,
  CONSUL,
  DNS_PORT,
  type DiscoveryBed,
  type Entry,
  healthOf,
  IMAGE,
  NODE_IMAGE,
  NODE_ADDRESS,
  startDiscoveryBed,
  type Watch,
  watch,
} from './discovery-bed.ts'

const STARTS = 20
/** busybox httpd is process 1 and has no handler for SIGTERM: it answers until the grace period is over. */
const serve = (port: number, body: string, before = '') =>
  JSON.stringify([
    'sh',
    '-c',
    `mkdir -p /www; ${before} echo '${body}' >/www/metrics; echo '${body}' >/www/index.html; exec httpd -f -p ${port} -h /www`,
  ])

const webApp = (replicas: number) => `services:
  web:
    image: ${IMAGE}
    pull_policy: never
    command: ${serve(8080, 'lab_up 1', 'touch /www/ok; sleep 2;')}
    stop_grace_period: 3s
    expose: ["8080"]
    healthcheck: { test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/ok"], interval: 200ms, timeout: 2s, retries: 3, start_period: 10s }
    labels: { rubato.tags: "blue,front" }
    deploy: { replicas: ${replicas} }
    x-rubato: { protocol: http, drain: 0s, access: { allow: ["role:scraper"] } }
`

const passing = (entries: readonly Entry[]) => entries.filter((entry) => entry.status === 'passing')

describe.skipIf(!isRootOnDebian())('discovery on real parts', () => {
  let bed: DiscoveryBed
  let key = ''
  const watches: Watch[] = []
  const watched = (base: string, service: string, mode?: Parameters<typeof watch>[2]) => {
    const started = watch(base, service, mode)
    watches.push(started)
    return started
  }
  const bearer = () => ({ authorization: `Bearer ${key}` })
  const urlOf = (entry: Entry, path = '/metrics') => `http://${entry.address}:${entry.port}${path}`

  beforeAll(async () => {
    bed = await startDiscoveryBed()
    const made = await bed.coordinator.send<{ text: string }>('POST', '/v1/keys', { name: 'prometheus', roles: ['scraper'] })
    key = made.text
    bed.docker('network', 'create', 'plain')
  })
  afterAll(async () => {
    await Promise.all(watches.map((one) => one.stop()))
    if (process.env.RUBATO_KEEP_LOGS && bed) {
      mkdirSync(process.env.RUBATO_KEEP_LOGS, { recursive: true })
      for (const [name, file] of [
        ['agent', bed.agentLog],
        ['coordinator', bed.coordinator.log],
      ] as const)
        writeFileSync(join(process.env.RUBATO_KEEP_LOGS, `${name}.log`), readFileSync(file))
    }
    await bed?.stop()
  })

  it('a service is in Consul and in the embedded catalog when it is ready, not before, and never without its check', async () => {
    const consul = watched(CONSUL, 'web')
    const embedded = watched(CATALOG, 'web')
    const began = Date.now()
    await bed.up('shop', webApp(1))
    const inConsul = await consul.first((entries) => entries.length > 0, 'web')
    const inEmbedded = await embedded.first((entries) => entries.length > 0, 'web')
    expect(Math.min(inConsul.atMs, inEmbedded.atMs) - began).toBeGreaterThan(2_000) // it listens after two seconds
    for (const { entries } of [inConsul, inEmbedded]) {
      expect(entries).toHaveLength(1)
      expect(entries[0]).toMatchObject({ status: 'passing', address: NODE_ADDRESS, instance: 'shop/web/1/1' })
      expect(entries[0]?.tags).toEqual(['shop', 'blue', 'front'])
    }
    expect(inConsul.entries[0]).toEqual(inEmbedded.entries[0])
    const entry = inConsul.entries[0] as Entry
    expect((await fetch(urlOf(entry), { headers: bearer() })).status).toBe(200)
    expect((await fetch(urlOf(entry))).status).toBe(401)
    await pause(500)
    for (const { snapshots } of [consul, embedded]) {
      expect(snapshots.filter(({ entries }) => entries.length === 0).length).toBeGreaterThan(50)
      expect(snapshots.flatMap(({ entries }) => entries).filter(({ status }) => status !== 'passing')).toEqual([])
    }
    await Promise.all([consul.stop(), embedded.stop()])
  })

  it('the embedded catalog answers with the keys and types that Consul answers with', async () => {
    const paths = [
      '/v1/catalog/services',
      '/v1/catalog/service/web',
      '/v1/catalog/nodes',
      '/v1/catalog/node/NODE',
      '/v1/health/service/web',
      '/v1/health/service/web?passing',
      '/v1/health/checks/web',
      '/v1/health/node/NODE',
      '/v1/health/state/passing',
      '/v1/catalog/datacenters',
      '/v1/status/leader',
      '/v1/status/peers',
      '/v1/catalog/service/none',
      '/v1/catalog/node/none',
    ]
    const nodeOf = async (base: string) =>
      ((await (await fetch(`${base}/v1/catalog/service/web`)).json()) as { Node: string }[])[0]?.Node ?? ''
    const nodes: Record<string, string> = { [CONSUL]: await nodeOf(CONSUL), [CATALOG]: await nodeOf(CATALOG) }
    const differences: string[] = []
    for (const path of paths) {
      const [real, ours] = await Promise.all(
        [CONSUL, CATALOG].map(async (base) => {
          const response = await fetch(base + path.replace('NODE', nodes[base] ?? ''))
          return { status: response.status, headers: response.headers, body: (await response.json()) as unknown }
        }),
      )
      if (!real || !ours) throw new Error('no answers')
      if (real.status !== ours.status) differences.push(`${path}: status ${real.status}, ours ${ours.status}`)
      for (const header of ['content-type', 'x-consul-index', 'x-consul-knownleader', 'x-consul-lastcontact'])
        if (real.headers.has(header) !== ours.headers.has(header)) differences.push(`${path}: header ${header}`)
      compareShapes(sampleOf(real.body), sampleOf(ours.body), path, differences)
    }
    expect(differences).toEqual([])
    const head = await fetch(`${CATALOG}/v1/health/service/web`, { method: 'HEAD' })
    expect([head.status, await head.text(), head.headers.get('X-CONSUL-INDEX') !== null]).toEqual([200, '', true])
  })

  it('dig resolves A and SRV over UDP and TCP, in Consul’s form and in ours', async () => {
    const [entry] = await healthOf(CATALOG, 'web')
    const dig = (name: string, type: string, tcp: boolean) =>
      spawnSync('dig', [`@${NODE_ADDRESS}`, '-p', String(DNS_PORT), tcp ? '+tcp' : '+notcp', '+short', '+tries=1', name, type], {
        encoding: 'utf8',
      }).stdout.trim()
    for (const tcp of [false, true]) {
      for (const name of [
        'web.service.consul',
        'blue.web.service.consul',
        'web.service.dc1.consul',
        'web.rubato',
        'web.shop.rubato',
      ])
        expect(dig(name, 'A', tcp)).toBe(NODE_ADDRESS)
      for (const name of ['web.service.consul', '_web._tcp.service.consul', 'web.shop.rubato'])
        expect(dig(name, 'SRV', tcp)).toMatch(new RegExp(`^1 1 ${entry?.port} 7f580001\\.addr\\.dc1\\.consul\\.$`))
      expect(dig('7f580001.addr.dc1.consul', 'A', tcp)).toBe(NODE_ADDRESS)
      expect(dig('none.service.consul', 'A', tcp)).toBe('')
    }
  })

  it('a real Prometheus finds and scrapes what runs, finds a new instance and drops a removed one', async () => {
    const dir = join(bed.dir, 'prometheus')
    mkdirSync(dir)
    writeFileSync(join(dir, 'key'), key, { mode: 0o600 })
    const listen = `${NODE_ADDRESS}:18690`
    const binary = installPrometheus(report)
    if (binary === null) throw new Error('no Prometheus could be installed')
    writeFileSync(
      join(dir, 'prometheus.yml'),
      `global: { scrape_interval: 1s, scrape_timeout: 1s }
scrape_configs:
  - job_name: rubato
    consul_sd_configs: [{ server: "${CATALOG.slice('http://'.length)}" }]
    bearer_token_file: ${join(dir, 'key')}
    relabel_configs: [{ source_labels: [__meta_consul_service], regex: web, action: keep }]
`,
    )
    const prometheus: ChildProcess = spawn(
      binary,
      [
        `--config.file=${join(dir, 'prometheus.yml')}`,
        `--storage.tsdb.path=${join(dir, 'data')}`,
        `--web.listen-address=${listen}`,
        '--log.level=warn',
      ],
      { stdio: ['ignore', 'ignore', 'inherit'] },
    )
    const up = async () => {
      try {
        const answer = (await (await fetch(`http://${listen}/api/v1/targets?state=active`)).json()) as {
          data: { activeTargets: { health: string; labels: Record<string, string>; scrapeUrl: string }[] }
        }
        return answer.data.activeTargets
          .filter((target) => target.health === 'up')
          .map((target) => Number(new URL(target.scrapeUrl).port))
          .sort()
      } catch {
        return []
      }
    }
    const ports = async () =>
      passing(await healthOf(CATALOG, 'web'))
        .map((entry) => entry.port)
        .sort()
    const upIs = (count: number, what: string) =>
      until(async () => (await up()).length === count && (await up()).join() === (await ports()).join(), what, 60_000, 100)
    try {
      await upIs(1, 'Prometheus to scrape the instance')
      const scaled = Date.now()
      await bed.scale('shop', 'web', 2)
      await upIs(2, 'Prometheus to find the new instance')
      const grown = Date.now()
      await bed.scale('shop', 'web', 1)
      await upIs(1, 'Prometheus to drop the removed one')
      report(
        `Prometheus by consul_sd: new instance scraped ${grown - scaled} ms after the order, removed one dropped after ${Date.now() - grown} ms`,
      )
      const query = (await (await fetch(`http://${listen}/api/v1/query?query=lab_up`)).json()) as { data: { result: unknown[] } }
      expect(query.data.result.length).toBeGreaterThan(0)
    } finally {
      prometheus.kill('SIGTERM')
      await until(() => prometheus.exitCode !== null || prometheus.signalCode !== null, 'Prometheus to end', 20_000)
    }
  })

  it('the real Consul client reads the embedded catalog, with blocking queries', async () => {
    const binary = installConsul(report) ?? 'consul'
    const consul = (...args: readonly string[]) =>
      spawnSync(binary, [...args, `-http-addr=${CATALOG}`], { encoding: 'utf8', timeout: 20_000 })
    expect(consul('catalog', 'services', '-tags').stdout).toMatch(/^web\s+blue,front,shop$/m)
    expect(consul('catalog', 'nodes', '-service=web').stdout).toContain(NODE_ADDRESS)
    expect(consul('catalog', 'datacenters').stdout.trim()).toBe('dc1')
    const out = join(bed.dir, 'watched')
    writeFileSync(out, '')
    const watcher = spawn(binary, [
      'watch',
      `-http-addr=${CATALOG}`,
      '-type=service',
      '-service=web',
      '-passingonly=true',
      `cat >>${out}; echo >>${out}`,
    ])
    const seen = () =>
      readFileSync(out, 'utf8')
        .split('\n')
        .filter((line) => line.startsWith('['))
        .map((line) => (JSON.parse(line) as unknown[]).length)
    try {
      await until(() => seen().at(-1) === 1, 'the watch to say one instance', 20_000)
      await bed.scale('shop', 'web', 2)
      await until(() => seen().at(-1) === 2, 'the watch to say two instances', 30_000)
      await bed.scale('shop', 'web', 1)
      await until(() => seen().at(-1) === 1, 'the watch to say one instance again', 30_000)
    } finally {
      watcher.kill('SIGKILL')
    }
  })

  it('an instance that is stopped is gone from Consul and the embedded catalog before it stops answering', async () => {
    await bed.scale('shop', 'web', 2)
    const both = await watched(CATALOG, 'web', 'blocking').first((entries) => passing(entries).length === 2, 'two instances')
    for (const order of ['scale', 'down'] as const) {
      const slot = order === 'scale' ? 'shop/web/2/' : 'shop/web/1/'
      const victim = (await healthOf(CATALOG, 'web')).find((entry) => entry.instance?.startsWith(slot))
      expect(victim, `${order}: ${JSON.stringify(both.entries)}`).toBeDefined()
      const container = victim?.instance?.replaceAll('/', '.') ?? ''
      const address = bed.docker('inspect', '-f', '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}', container)
      const direct = askRepeatedly(`http://${address}:8080/`)
      const gateway = askRepeatedly(urlOf(victim as Entry), bearer())
      const consul = watched(CONSUL, 'web')
      const embedded = watched(CATALOG, 'web')
      await pause(200)
      const ordered = Date.now()
      await (order === 'scale' ? bed.scale('shop', 'web', 1) : bed.down('shop'))
      const without = (entries: readonly Entry[]) => !entries.some((entry) => entry.id === victim?.id)
      const goneConsul = await consul.first(without, 'the instance to be gone')
      const goneEmbedded = await embedded.first(without, 'the instance to be gone')
      await until(() => bed.tryDocker('inspect', container).code !== 0, 'the container to be removed', 30_000)
      await Promise.all([direct.stop(), gateway.stop(), consul.stop(), embedded.stop()])
      const gone = Math.max(goneConsul.atMs, goneEmbedded.atMs)
      const firstFailure = (log: typeof direct) => log.seen.find(({ ok }) => !ok)?.atMs ?? Number.POSITIVE_INFINITY
      report(
        `${order}: after the order gone from Consul ${goneConsul.atMs - ordered} ms, from the catalog ${goneEmbedded.atMs - ordered} ms, ` +
          `first refused request ${firstFailure(gateway) - ordered} ms (gateway), ${firstFailure(direct) - ordered} ms (container)`,
      )
      expect(gone).toBeLessThan(firstFailure(gateway))
      expect(gone).toBeLessThan(firstFailure(direct))
    }
  })

  it('row 48: an agent killed while containers change reconciles Consul when it is back', async () => {
    await bed.up('shop', webApp(2))
    await until(async () => passing(await healthOf(CONSUL, 'web')).length === 2, 'two instances in Consul')
    const [dead, survivor] = await healthOf(CONSUL, 'web')
    await bed.killAgent()
    bed.docker('rm', '-f', dead?.instance?.replaceAll('/', '.') ?? '')
    const survivorRuns = bed.docker(
      'inspect',
      '-f',
      '{{.Id}} {{.State.StartedAt}}',
      survivor?.instance?.replaceAll('/', '.') ?? '',
    )
    expect(await healthOf(CONSUL, 'web')).toHaveLength(2)
    // Left by an earlier life of this node: an instance that nobody knows any more.
    const nodeId = (await bed.coordinator.get<{ items: { id: string }[] }>('/v1/nodes')).items[0]?.id ?? ''
    for (const [id, meta] of [
      ['lab-1:shop.old.1.1:80', { 'rubato-node': nodeId }],
      ['not-ours', {}],
    ] as const)
      await fetch(`${CONSUL}/v1/agent/service/register`, {
        method: 'PUT',
        body: JSON.stringify({ ID: id, Name: 'web', Address: '127.0.0.1', Port: 1, Meta: meta }),
      })
    const began = Date.now()
    const consul = watched(CONSUL, 'web')
    const embedded = watched(CATALOG, 'web')
    await bed.startAgent()
    await consul.first((entries) => !entries.some((entry) => entry.id === 'lab-1:shop.old.1.1:80'), 'the leftover to go')
    const clean = await consul.first((entries) => !entries.some((entry) => entry.id === dead?.id), 'the dead one to go')
    const whole = await consul.first(
      (entries) => passing(entries).length === 2 && entries.length === 3,
      'the service to be whole',
      clean.atMs,
    )
    report(`killed agent: Consul cleaned ${clean.atMs - began} ms after its start, whole again after ${whole.atMs - began} ms`)
    expect(whole.entries.some((entry) => entry.id === 'not-ours')).toBe(true)
    // The survivor was adopted. Its way in is the agent's own gateway: it is listed again when that is open.
    const name = survivor?.instance?.replaceAll('/', '.') ?? ''
    expect(bed.docker('inspect', '-f', '{{.Id}} {{.State.StartedAt}}', name)).toBe(survivorRuns)
    await until(async () => passing(await healthOf(CATALOG, 'web')).length === 2, 'the catalog to be whole', 30_000)
    const back = embedded.snapshots.findLast(({ entries }) => !passing(entries).some((entry) => entry.id === survivor?.id))
    report(`killed agent: its survivor was in the catalog again ${(back?.atMs ?? began) - began} ms after its start`)
    await embedded.stop()
    await fetch(`${CONSUL}/v1/agent/service/deregister/not-ours`, { method: 'PUT' })
    await consul.stop()
  })

  it('row 48: a Consul that lost everything is filled again within 60 s', async () => {
    bed.docker(
      'run',
      '-d',
      '--name',
      'native',
      '--network',
      'plain',
      '-p',
      `${NODE_ADDRESS}:28901:80`,
      '-e',
      'SERVICE_NAME=native',
      '-e',
      'SERVICE_CHECK_TCP=true',
      IMAGE,
      'httpd',
      '-f',
      '-p',
      '80',
    )
    await until(async () => (await healthOf(CONSUL, 'native')).length === 1, 'the other container in Consul')
    await bed.replaceConsul()
    const began = Date.now()
    await until(
      async () => passing(await healthOf(CONSUL, 'web')).length === 2 && (await healthOf(CONSUL, 'native')).length === 1,
      'everything to be registered again',
      60_000,
    )
    report(`empty Consul: filled again ${Date.now() - began} ms after it answered`)
    bed.docker('rm', '-f', 'native')
  })

  it('an instance that becomes unhealthy is critical in both, and passing again when it recovers', async () => {
    const consul = watched(CONSUL, 'web')
    const embedded = watched(CATALOG, 'web')
    const [one] = await healthOf(CATALOG, 'web')
    const container = one?.instance?.replaceAll('/', '.') ?? ''
    const notPassing = (entries: readonly Entry[]) => !passing(entries).some((entry) => entry.id === one?.id)
    await pause(100)
    const began = Date.now()
    bed.docker('exec', container, 'rm', '/www/ok')
    const [inConsul, inEmbedded] = await Promise.all([
      consul.first(notPassing, 'the instance to be critical'),
      embedded.first(notPassing, 'the instance to be critical'),
    ])
    report(`unhealthy: critical in Consul after ${inConsul.atMs - began} ms, in the catalog after ${inEmbedded.atMs - began} ms`)
    expect(inConsul.entries.find((entry) => entry.id === one?.id)?.status ?? 'critical').toBe('critical')
    await until(async () => passing(await healthOf(CONSUL, 'web')).length === 2, 'it to be passing again', 60_000)
    await until(async () => passing(await healthOf(CATALOG, 'web')).length === 2, 'it to be passing again', 60_000)
    await Promise.all([consul.stop(), embedded.stop()])
  })

  it('containers that Rubato did not start are registered as Registrator does, and gone before they stop answering', async () => {
    const run = (name: string, ...args: readonly string[]) =>
      bed.docker('run', '-d', '--name', name, '--network', 'plain', ...args)
    const script = 'mkdir -p /www; echo hi >/www/index.html; httpd -f -p 80 -h /www & exec httpd -f -p 81 -h /www'
    run(
      'cache1',
      '-p',
      `${NODE_ADDRESS}:28910:80`,
      '-p',
      `${NODE_ADDRESS}:28911:81`,
      '-e',
      'SERVICE_TAGS=a\\,b,c',
      '-e',
      'SERVICE_80_NAME=cache',
      '-e',
      'SERVICE_81_NAME=cache-admin',
      '-e',
      'SERVICE_80_CHECK_HTTP=/',
      '-e',
      'SERVICE_80_CHECK_INTERVAL=1s',
      '-e',
      'SERVICE_OWNER=ops',
      '-l',
      'SERVICE_81_IGNORE=1',
      IMAGE,
      'sh',
      '-c',
      script,
    )
    run(
      'hidden',
      '-p',
      `${NODE_ADDRESS}:28912:80`,
      '-e',
      'SERVICE_NAME=hidden',
      '-l',
      'SERVICE_IGNORE=yes',
      IMAGE,
      'sh',
      '-c',
      script,
    )
    const expected = { id: 'lab-1:cache1:80', address: NODE_ADDRESS, port: 28910, tags: ['a,b', 'c'] }
    for (const base of [CONSUL, CATALOG]) {
      await until(async () => passing(await healthOf(base, 'cache')).length === 1, `cache at ${base}`)
      expect((await healthOf(base, 'cache'))[0]).toMatchObject(expected)
      const services = (await (await fetch(`${base}/v1/catalog/services`)).json()) as Record<string, string[]>
      expect(Object.keys(services).filter((name) => /hidden|admin/.test(name))).toEqual([])
      const [full] = (await (await fetch(`${base}/v1/catalog/service/cache`)).json()) as { ServiceMeta: Record<string, string> }[]
      expect(full?.ServiceMeta.owner).toBe('ops')
    }
    await bed.coordinator.kill()
    await bed.coordinator.start()
    await until(async () => passing(await healthOf(CATALOG, 'cache')).length === 1, 'a new coordinator to be told of it')
    // A signal to reload is no stop.
    bed.docker('kill', '-s', 'USR2', 'cache1')
    await pause(300)
    expect(await healthOf(CATALOG, 'cache')).toHaveLength(1)

    for (const how of ['stop', 'kill'] as const) {
      const consul = watched(CONSUL, 'cache')
      const embedded = watched(CATALOG, 'cache')
      const asked = askRepeatedly(`http://${NODE_ADDRESS}:28910/`)
      await pause(200)
      const began = Date.now()
      const stopping = spawn(
        'docker',
        ['-H', `unix://${bed.engine.socket}`, ...(how === 'stop' ? ['stop', '-t', '2'] : ['kill']), 'cache1'],
        { stdio: 'ignore' },
      )
      const ended = new Promise((resolve) => stopping.on('exit', resolve))
      const [goneConsul, goneEmbedded] = await Promise.all(
        [consul, embedded].map((one) => one.first((entries) => entries.length === 0, 'cache to go')),
      )
      await ended
      await until(() => asked.seen.some(({ ok }) => !ok), 'it to stop answering', 10_000)
      await Promise.all([consul.stop(), embedded.stop(), asked.stop()])
      const silent = asked.seen.find(({ ok }) => !ok)?.atMs ?? 0
      report(
        `docker ${how} of another container: gone from Consul ${(goneConsul?.atMs ?? 0) - began} ms, from the catalog ${(goneEmbedded?.atMs ?? 0) - began} ms, silent ${silent - began} ms`,
      )
      if (how === 'stop') expect(Math.max(goneConsul?.atMs ?? 0, goneEmbedded?.atMs ?? 0)).toBeLessThan(silent)
      bed.docker('start', 'cache1')
      for (const base of [CONSUL, CATALOG])
        await until(async () => (await healthOf(base, 'cache')).length === 1, 'cache to be back')
    }
    bed.docker('rm', '-f', 'cache1', 'hidden')
    for (const base of [CONSUL, CATALOG])
      await until(async () => (await healthOf(base, 'cache')).length === 0, 'cache to be gone')
  })

  it('a container calls other services by plain name on their native port, also one that was deployed after it', async () => {
    const service = (name: string, port: number) => `  ${name}:
    image: ${IMAGE}
    pull_policy: never
    command: ${serve(port, `${name} here`)}
    stop_grace_period: 0s
    expose: ["${port}"]
    x-rubato: { protocol: http, drain: 0s }
`
    const caller = `services:
  caller:
    image: ${NODE_IMAGE}
    pull_policy: never
    stop_grace_period: 0s
`
    await bed.up('mesh', caller + service('api', 8080))
    const started = bed.docker('inspect', '-f', '{{.State.StartedAt}}', 'mesh.caller.1.1')
    const get = (url: string) =>
      bed
        .tryDocker(
          'exec',
          'mesh.caller.1.1',
          '/usr/bin/node',
          '-e',
          `fetch('${url}').then(async (r) => process.stdout.write(await r.text()), (e) => console.log(String(e.cause)))`,
        )
        .output.trim()
    const answers = (name: string, port: number, wanted: string) => {
      let last = ''
      return until(
        () => {
          last = get(`http://${name}:${port}/`)
          return last === wanted
        },
        `${name} to answer`,
        15_000,
      ).catch((error: unknown) => {
        throw new Error(`${String(error)}, last: ${last}`)
      })
    }
    for (const name of ['api', 'api.mesh', 'api.mesh.rubato']) await answers(name, 8080, 'api here')
    await bed.up('mesh', caller + service('api', 8080) + service('late', 8081))
    for (const name of ['late', 'late.mesh', 'late.mesh.rubato']) await answers(name, 8081, 'late here')
    expect(bed.docker('inspect', '-f', '{{.State.StartedAt}}', 'mesh.caller.1.1')).toBe(started)
    const hosts = ['exec', 'mesh.caller.1.1', '/usr/bin/node', '-p', "require('fs').readFileSync('/etc/hosts', 'utf8')"]
    expect(bed.docker(...hosts)).not.toContain('late')
    await bed.down('mesh')
  })

  it(`ready to resolvable over ${STARTS} starts`, async () => {
    const fast = (replicas: number) => `services:
  quick:
    image: ${IMAGE}
    pull_policy: never
    command: ${serve(8080, 'quick')}
    stop_grace_period: 0s
    expose: ["8080"]
    deploy: { replicas: ${replicas} }
    x-rubato: { protocol: http, drain: 0s }
`
    await bed.up('speed', fast(1))
    const consul = watched(CONSUL, 'quick', 'blocking')
    const embedded = watched(CATALOG, 'quick', 'blocking')
    for (let replicas = 2; replicas <= STARTS + 1; replicas += 1) {
      await bed.scale('speed', 'quick', replicas)
      for (const catalog of [consul, embedded])
        await catalog.first((entries) => passing(entries).length === replicas, `${replicas} instances`)
    }
    const readyAt = readyTimes(bed.agentLog, 'speed/quick/')
    const delays = (catalog: Watch) =>
      [...readyAt].flatMap(([instance, atMs]) => {
        const seen = catalog.snapshots.find(({ entries }) => passing(entries).some((entry) => entry.instance === instance))
        return seen === undefined || instance === 'speed/quick/1/1' ? [] : [seen.atMs - atMs]
      })
    for (const [name, catalog] of [
      ['Consul', consul],
      ['embedded catalog', embedded],
    ] as const) {
      const values = delays(catalog)
      expect(values).toHaveLength(STARTS)
      report(
        `ready → resolvable in ${name}: p50 ${quantile(values, 0.5)} ms, p99 ${quantile(values, 0.99)} ms of ${values.length}`,
      )
      expect(quantile(values, 0.99)).toBeLessThan(2_000)
    }
    await Promise.all([consul.stop(), embedded.stop()])
    await bed.down('speed')
  })
})

/** When the agent said of each instance that it is ready (epoch ms). */
function readyTimes(log: string, prefix: string): Map<string, number> {
  const found = new Map<string, number>()
  for (const line of readFileSync(log, 'utf8').split('\n')) {
    if (!line.includes('instance moved') || !line.includes(prefix)) continue
    const entry = JSON.parse(line) as { time: number | string; instance: string; to: string }
    if (entry.to === 'ready' && !found.has(entry.instance))
      found.set(entry.instance, typeof entry.time === 'number' ? entry.time : Date.parse(entry.time))
  }
  return found
}

function report(line: string): void {
  process.stdout.write(`  figure: ${line}\n`)
}

/** Keys that only parts of Consul have that we do not: service mesh. */
const NOT_OURS = /^(Service)?(Proxy|Connect|Kind)$|^Definition$/

/** Of a map by id, or a list: one representative, so that shapes can be compared. */
function sampleOf(body: unknown): unknown {
  return Array.isArray(body) ? body.slice(0, 1) : body
}

function compareShapes(real: unknown, ours: unknown, path: string, differences: string[]): void {
  if (typeOf(real) !== typeOf(ours)) {
    differences.push(`${path}: ${typeOf(real)}, ours ${typeOf(ours)}`)
  } else if (Array.isArray(real) && Array.isArray(ours)) {
    if (real.length > 0 && ours.length > 0) compareShapes(real[0], ours[0], `${path}[]`, differences)
  } else if (typeof real === 'object' && real !== null && ours !== null) {
    // Maps by names of users' choice: any one of each stands for the others.
    if (/Meta$|TaggedAddresses$|\/catalog\/services$/.test(path)) return
    if (path.endsWith('.Services')) {
      compareShapes(Object.values(real)[0], Object.values(ours as object)[0], `${path}.*`, differences)
      return
    }
    for (const [name, value] of Object.entries(real)) {
      if (NOT_OURS.test(name)) continue
      if (!(name in (ours as object))) differences.push(`${path}.${name} is missing`)
      else compareShapes(value, (ours as Record<string, unknown>)[name], `${path}.${name}`, differences)
    }
  }
}

function typeOf(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'list' : typeof value
}
