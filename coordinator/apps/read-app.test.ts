// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import { describe, expect, it } from 'vitest'
import { specHashOf } from '../../shared/canonical.ts'
import { type AppFileSetup, read, accept, acceptOne, main, refuse, refuseOne } from '../../test/builders/app-files.ts'
import { appSpecSchema } from './app-spec-schema.ts'

describe('an app file', () => {
  it('becomes a spec with the defaults of the design', async () => {
    const { app } = await accept('services:\n  web:\n    image: shop/web:1.4\n')
    expect(app.name).toBe('shop')
    const spec = app.services[0]
    expect(spec).toMatchObject({
      name: 'web',
      mode: 'replicated',
      replicas: 1,
      scale: null,
      update: { parallelism: 1, order: 'start-first', monitorMs: 10_000, failureAction: 'rollback' },
      unit: {
        runtime: 'docker',
        drainMs: 10_000,
        stopGraceMs: 10_000,
        load: [{ kind: 'cpu' }],
        access: { public: false, sameApp: true, anyKey: true },
        balance: 'least-load',
        reservations: { cpuMillis: 0, memoryBytes: 0 },
      },
    })
    expect(spec?.specHash).toBe(specHashOf(spec?.unit))
  })

  it('names the app: given, COMPOSE_PROJECT_NAME, name:, directory, file', async () => {
    const text = 'name: from-file\nservices: {web: {image: "a:1"}}'
    const nameOf = async (input: string, setup: AppFileSetup) => (await accept(input, setup)).app.name
    expect(await nameOf(text, { appName: 'given', environment: { COMPOSE_PROJECT_NAME: 'env' } })).toBe('given')
    expect(await nameOf(text, { environment: { COMPOSE_PROJECT_NAME: 'env' } })).toBe('env')
    expect(await nameOf(text, {})).toBe('from-file')
    expect(await nameOf('services: {web: {image: "a:1"}}', { fileName: '/x/My App/compose.yaml' })).toBe('my-app')
    expect(await nameOf('services: {web: {image: "a:1"}}', { fileName: 'shop.yaml' })).toBe('shop')
  })

  it('reports every fault at once, each with pointer, line and column', async () => {
    const faults = await refuse(
      'services:\n  web:\n    imgae: web:1\n    ports: ["99999:1"]\n    deploy: {replicas: many}\n  db:\n    image: DB:1\n',
    )
    expect(faults.map((fault) => [fault.at, fault.path])).toEqual([
      ['2:3', '/services/web'],
      ['3:5', '/services/web/imgae'],
      ['4:13', '/services/web/ports/0'],
      ['5:24', '/services/web/deploy/replicas'],
      ['7:12', '/services/db/image'],
    ])
    expect(faults[1]?.hint).toBe('did you mean "image"?')
  })

  it('answers unknown keys with a suggestion at every level and leaves x-* alone', async () => {
    expect((await refuse('servics: {}\n'))[0]?.hint).toBe('did you mean "services"?')
    expect((await refuseOne('healthcheck: {tset: [CMD, a]}')).hint).toBe('did you mean "test"?')
    expect((await refuseOne('deploy: {resources: {limit: {}}}')).hint).toBe('did you mean "limits"?')
    expect((await refuseOne('x-rubato: {scale: {max: 3, mni: 1}}')).path).toBe('/services/web/x-rubato/scale/mni')
    await acceptOne('x-other: {anything: [1]}\nports: [{target: 80, x-note: here}]')
  })

  it('says in words what is wrong with a value of x-rubato', async () => {
    const faults = await refuse(
      'services:\n  web:\n    image: a:1\n    x-rubato:\n      scale: { min: 0, max: 4, window: 30, load: foo }\n      runtime: podman\n',
    )
    expect(faults.map((fault) => [fault.at, fault.message])).toEqual([
      ['5:21', 'x-rubato.scale.min must be at least 1'],
      ['5:40', 'x-rubato.scale.window must be a duration such as "30s"'],
      ['5:50', 'x-rubato.scale.load cannot have this value'],
      ['6:16', 'x-rubato.runtime must be "docker" or "process"'],
    ])
  })

  it('a key misspelt in x-rubato is found at its place with a suggestion', async () => {
    const faults = await refuse(
      'services:\n  web:\n    image: a:1\n    x-rubato:\n      scale: { max: 3, warmup: 5s }\n      balnce: hash\n',
    )
    expect(faults.map((fault) => [fault.at, fault.hint])).toEqual([
      ['5:24', 'did you mean "warmUp"?'],
      ['6:7', 'did you mean "balance"?'],
    ])
  })

  it('keeps the given text as source, with no variable put in', async () => {
    const text = 'services: {web: {image: "a:1", environment: {P: "${SECRET}"}}}'
    const result = await read(text, { environment: { SECRET: 'hunter2' } })
    expect(result).toMatchObject({ kind: 'ok', source: text })
  })
})

describe('limits of app files (row App YAML)', () => {
  it('row App YAML: an anchor bomb is refused', async () => {
    const levels = Array.from(
      { length: 12 },
      (_, level) =>
        `a${level}: &a${level} [${Array(9)
          .fill(level === 0 ? 'x' : `*a${level - 1}`)
          .join(', ')}]`,
    )
    const faults = await refuse(`x-bomb:\n${levels.map((line) => `  ${line}`).join('\n')}\nservices: {}\n`)
    expect(faults[0]?.message).toMatch(/expands to more than 50000 values/)
  })

  it('row App YAML: more than 256 KiB is refused', async () => {
    expect((await refuse(`# ${'x'.repeat(256 * 1024)}\n`))[0]?.message).toMatch(/at most 262144/)
  })

  it('row App YAML: a depth over 32 is refused, also by aliases and when a parser would overflow', async () => {
    expect((await refuse(`x-a: ${'['.repeat(40)}${']'.repeat(40)}\nservices: {}`))[0]?.message).toMatch(/too deeply/)
    const faults = await refuse(`x-a: ${'['.repeat(20_000)}`)
    expect(faults.length).toBeGreaterThan(0)
  })

  it('row App YAML: an alias inside its own anchor is refused', async () => {
    expect((await refuse('x-a: &a\n  b: *a\nservices: {}\n'))[0]?.message).toMatch(/inside its own anchor/)
  })

  it('row min>max: min above max, low above high, and a duplicate port are refused', async () => {
    expect((await refuseOne('x-rubato: {scale: {min: 5, max: 3}}')).path).toBe('/services/web/x-rubato/scale/min')
    expect((await refuseOne('x-rubato: {scale: {max: 3, low: 90, high: 70}}')).message).toMatch(/low \(90\)/)
    const faults = await refuse('services:\n  a: {image: "a:1", ports: ["80:80"]}\n  b: {image: "b:1", ports: ["80:90"]}\n')
    expect(faults).toMatchObject([{ path: '/services/b/ports/0', message: 'port 80/tcp is published twice' }])
  })

  it('row Privileged: privileged, host network, docker.sock, "/" and capabilities of root are refused unless the policy allows them', async () => {
    const cases = [
      ['privileged: true', 'allowPrivileged'],
      ['cap_add: [SYS_ADMIN]', 'allowPrivileged'],
      ['network_mode: host', 'allowHostNetwork'],
      ['volumes: ["/var/run/docker.sock:/var/run/docker.sock"]', 'allowHostMounts'],
      ['volumes: ["/:/host:ro"]', 'allowHostMounts'],
      ['volumes: ["../../etc/passwd:/p"]', 'allowHostMounts'],
      ['volumes: [{type: bind, source: /run/../, target: /h}]', 'allowHostMounts'],
    ] as const
    for (const [service, policy] of cases) {
      const fault = await refuseOne(service)
      expect(fault.message).toMatch(/forbidden/)
      // No hint sends people after a setting that does not exist.
      expect(fault.hint).not.toMatch(/polic|administrator/)
      await acceptOne(service, { policy: { [policy]: true } })
    }
  })

  it('row Mutable image tag: it deploys with a warning', async () => {
    for (const image of ['nginx', 'nginx:latest', 'registry.local:5000/a/b'])
      expect((await accept(`services: {web: {image: "${image}"}}`)).warnings.join()).toMatch(/different ones/)
    const pinned = `a@sha256:${'0'.repeat(64)}`
    expect((await accept(`services: {web: {image: "${pinned}"}}`)).warnings).toEqual([])
  })

  it('row __proto__: such a key is refused wherever it stands', async () => {
    expect((await refuse('services: {web: {image: "a:1", environment: {__proto__: x}}}'))[0]?.message).toMatch(/__proto__/)
    await accept('services: {constructor: {image: "a:1", labels: {toString: x}}}')
  })

  it('keys given twice are refused with the line of the first', async () => {
    expect((await refuse('services:\n  web: {image: "a:1"}\n  web: {image: "b:1"}\n'))[0]).toMatchObject({
      at: '3:3',
      hint: 'it was first given in line 2; keep one of them',
    })
  })
})

describe('deploy and x-rubato', () => {
  it('reads everything of deploy', async () => {
    const spec = await acceptOne(
      'deploy:\n  mode: replicated\n  replicas: 3\n  labels: {team: a}\n  resources:\n    limits: {cpus: "0.50", memory: 128M, pids: 100}\n    reservations: {cpus: 0.25, memory: 64M}\n  placement:\n    constraints: [node.labels.disk == ssd, "node.zone!=b", node.role == worker]\n    preferences: [{spread: node.zone}]\n    max_replicas_per_node: 1\n  update_config: {parallelism: 2, delay: 5s, order: stop-first, monitor: 20s, failure_action: pause}\n  restart_policy: {condition: any}',
    )
    expect(spec).toMatchObject({
      replicas: 3,
      labels: { team: 'a' },
      update: { parallelism: 2, delayMs: 5_000, order: 'stop-first', monitorMs: 20_000, failureAction: 'pause' },
      placement: {
        constraints: [
          { attribute: 'node.labels.disk', operator: '==', value: 'ssd' },
          { attribute: 'node.zone', operator: '!=', value: 'b' },
        ],
        spreadOver: ['node.zone'],
        maxPerNode: 1,
      },
      unit: { reservations: { cpuMillis: 250, memoryBytes: 64 * 2 ** 20 } },
    })
    expect(main(spec).limits).toEqual({ cpuMillis: 500, memoryBytes: 128 * 2 ** 20, pids: 100 })
  })

  it('refuses more than five attributes to spread over: each is half as heavy as the one before, and all cost time', async () => {
    const spread = (count: number) =>
      `deploy: {placement: {preferences: [${Array.from({ length: count }, (_, index) => `{spread: node.labels.l${index}}`).join(', ')}]}}`
    expect((await acceptOne(spread(5))).placement.spreadOver).toHaveLength(5)
    expect((await refuseOne(spread(6))).message).toBe('more than 5 preferences')
    const { app } = await accept('services: {web: {image: "web:1"}}')
    const [web] = app.services
    const spreadOver = Array.from({ length: 6 }, () => 'node.zone')
    const services = [{ ...web, placement: { ...web?.placement, spreadOver } }]
    expect(appSpecSchema.safeParse({ ...app, services }).success).toBe(false)
  })

  it("reads the design's example", async () => {
    const { app } = await accept(
      'services:\n  api:\n    image: shop/api:1.4\n    expose: ["8080"]\n    deploy: { resources: { reservations: { cpus: "0.25", memory: 128M } } }\n    x-rubato:\n      scale: { min: 1, max: 40, load: custom, low: 60, high: 80, window: 30s, warmUp: 5s, coolDown: 20s, predict: auto }\n      access: { allow: [shop-web, role:operator], signed: optional }\n      balance: least-load\n      affinity: { near: [cache], avoid: [api], required: false }\n      tolerates: [gpu]\n      pools: [small, large]\n      expose: { host: shop.example.org, path: /api }\n  cache: { image: "redis:7" }\n',
    )
    expect(app.services[0]).toMatchObject({
      scale: {
        min: 1,
        max: 40,
        lowPercent: 60,
        highPercent: 80,
        windowMs: 30_000,
        warmUpMs: 5_000,
        coolDownMs: 20_000,
        predict: 'auto',
      },
      placement: {
        affinity: { near: ['cache'], avoid: ['api'], required: false },
        tolerates: ['gpu'],
        pools: ['small', 'large'],
      },
      unit: { load: [{ kind: 'custom' }], warmUpMs: 5_000, drainMs: 20_000, ports: [{ containerPort: 8080, protocol: 'http' }] },
    })
  })

  it('reads load sources from x-rubato and from labels', async () => {
    expect((await acceptOne('expose: [80]\nx-rubato: {scale: {max: 3, load: [requests, cpu], capacity: 20}}')).unit.load).toEqual(
      [{ kind: 'requests', capacity: 20 }, { kind: 'cpu' }],
    )
    expect((await acceptOne('expose: [80]\nx-rubato: {load: {url: "/status#/load/now", interval: 5s}}')).unit.load).toEqual([
      { kind: 'custom', pull: { kind: 'json', port: 80, path: '/status', pointer: '/load/now', intervalMs: 5_000 } },
    ])
    expect((await acceptOne('labels: {rubato.load.prometheus: queue_depth/50, rubato.load.port: 9000}')).unit.load).toEqual([
      {
        kind: 'custom',
        pull: { kind: 'prometheus', port: 9000, path: '/metrics', metric: 'queue_depth', full: 50, intervalMs: 2_000 },
      },
    ])
    expect((await refuseOne('x-rubato: {scale: {max: 3, load: requests}}')).hint).toMatch(/capacity/)
    expect((await refuseOne('labels: {rubato.load.ulr: /x}')).hint).toBe('did you mean "rubato.load.url"?')
  })

  it('a strict singleton runs once and is updated stop-first', async () => {
    const spec = await acceptOne('x-rubato: {singleton: {after: 30s}}')
    expect([spec.unit.singletonStrictMs, spec.update.order]).toEqual([30_000, 'stop-first'])
    expect((await refuseOne('deploy: {replicas: 2}\nx-rubato: {singleton: strict}')).path).toBe(
      '/services/web/x-rubato/singleton',
    )
    expect((await refuseOne('x-rubato: {singleton: {after: 14s}}')).message).toMatch(/allowed 15s without a coordinator/)
  })

  it('processes need a command and no image', async () => {
    const { app } = await accept('services: {web: {command: node server.js --greet "hello world", x-rubato: {runtime: process}}}')
    expect(app.services[0]).toMatchObject({
      unit: { runtime: 'process', containers: [{ image: '', command: ['node', 'server.js', '--greet', 'hello world'] }] },
    })
    expect((await refuse('services: {web: {image: "a:1"}}', { runtime: 'process' }))[0]?.message).toMatch(/needs "command"/)
  })

  it('refuses what would change what the app does, by name and with the reason', async () => {
    for (const service of [
      'pid: host',
      'ipc: host',
      'devices: ["/dev/dri:/dev/dri"]',
      'gpus: all',
      'deploy: {resources: {reservations: {devices: [{capabilities: [gpu]}]}}}',
      'runtime: nvidia',
      'security_opt: [seccomp:unconfined]',
      'volumes_from: [x]',
      'use_api_socket: true',
      'post_start: [{command: x}]',
      'network_mode: none',
    ]) {
      const fault = await refuseOne(service)
      expect(fault.message).toMatch(/not supported|forbidden/)
    }
  })

  it('warns of what is ignored, with the reason', async () => {
    const { warnings } = await accept(
      'services:\n  web:\n    image: a:1\n    build: .\n    container_name: x\n    logging: {driver: json-file}\n    cpu_shares: 3\n    deploy: {rollback_config: {parallelism: 1}, endpoint_mode: dnsrr}\n',
    )
    expect(warnings).toHaveLength(6)
    for (const warning of warnings) expect(warning).toMatch(/ignored/)
  })
})
