// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import { describe, expect, it } from 'vitest'
import { specHashOf } from '../../shared/canonical.ts'
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'
import { appSpecSchema } from './app-spec-schema.ts'
import { checkAppSpec } from './check-app-spec.ts'
import { readApp, type ReadAppInput, type ReadAppResult } from './read-app.ts'

interface Setup extends Partial<Omit<ReadAppInput, 'text' | 'readFile'>> {
  readonly files?: Record<string, string>
}

function read(text: string, setup: Setup = {}): Promise<ReadAppResult> {
  const { files = {}, ...rest } = setup
  return readApp({
    text,
    fileName: '/srv/shop/compose.yaml',
    environment: {},
    readFile: async (path) => (Object.hasOwn(files, path) ? (files[path] ?? null) : null),
    ...rest,
  })
}

async function accept(text: string, setup: Setup = {}): Promise<{ app: AppSpec; warnings: readonly string[] }> {
  const result = await read(text, setup)
  if (result.kind === 'refused')
    throw new Error(result.faults.map((fault) => `${fault.line}:${fault.column} ${fault.path} ${fault.message}`).join('\n'))
  // Whatever is read must pass the API's own checks.
  const parsed = appSpecSchema.safeParse(result.app)
  expect(parsed.error?.issues ?? []).toEqual([])
  const check = checkAppSpec(result.app, setup.policy)
  expect([...check.faults, ...check.forbidden]).toEqual([])
  return { app: result.app, warnings: result.warnings.map((warning) => warning.message) }
}

async function acceptOne(service: string, setup: Setup = {}): Promise<ServiceSpec> {
  const { app } = await accept(`services:\n  web:\n    image: web:1\n${indent(service)}`, setup)
  const spec = app.services[0]
  if (spec === undefined) throw new Error('no service')
  return spec
}

function main(spec: ServiceSpec) {
  const container = spec.unit.containers[0]
  if (container === undefined) throw new Error('no container')
  return container
}

async function refuse(
  text: string,
  setup: Setup = {},
): Promise<{ at: string; path: string; message: string; hint: string; file: string }[]> {
  const result = await read(text, setup)
  if (result.kind === 'ok') throw new Error('was accepted')
  return result.faults.map((fault) => ({
    at: `${fault.line}:${fault.column}`,
    path: fault.path,
    message: fault.message,
    hint: fault.hint ?? '',
    file: fault.file ?? '',
  }))
}

async function refuseOne(service: string, setup: Setup = {}) {
  const faults = await refuse(`services:\n  web:\n    image: web:1\n${indent(service)}`, setup)
  expect(faults).toHaveLength(1)
  return faults[0] ?? { at: '', path: '', message: '', hint: '', file: '' }
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n')
}

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
    const nameOf = async (input: string, setup: Setup) => (await accept(input, setup)).app.name
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
      expect(fault.hint).toContain(policy)
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

describe('interpolation and environment', () => {
  it('replaces variables from the environment, then .env, then defaults', async () => {
    const spec = await acceptOne(
      'environment:\n  A: ${A}\n  B: ${B:-b}\n  C: ${C-c}\n  D: ${D:-${A}-x}\n  E: ${A:+set}\n  F: $$HOME',
      {
        environment: { A: 'one', C: '' },
        files: { '.env': 'A=ignored\nB=from-env-file\n' },
      },
    )
    expect(main(spec).environment).toEqual({ A: 'one', B: 'from-env-file', C: '', D: 'one-x', E: 'set', F: '$HOME' })
  })

  it('says which required variable is missing and where', async () => {
    expect(await refuseOne('environment:\n  P: ${PASSWORD:?give one}')).toMatchObject({
      at: '5:10',
      message: 'the variable PASSWORD is required: give one',
    })
  })

  it('warns of a variable that is not set', async () => {
    const { warnings } = await accept('services: {web: {image: "a:${TAG}1"}}')
    expect(warnings).toContain('the variable TAG is not set; it counts as empty')
  })

  it('casts what interpolation gives to the type that is wanted', async () => {
    const spec = await acceptOne('deploy: {replicas: "${N:-3}"}\nread_only: ${RO:-true}\nx-rubato:\n  scale:\n    max: ${MAX:-7}')
    expect([spec.replicas, main(spec).readOnlyRootfs, spec.scale?.max]).toEqual([3, true, 7])
  })

  it('takes env files in order, then environment; a value-less name comes from outside', async () => {
    const spec = await acceptOne(
      'env_file:\n  - a.env\n  - {path: b.env, required: false}\n  - {path: none.env, required: false}\nenvironment: [OUT, X=3]',
      {
        environment: { OUT: 'side' },
        files: { 'a.env': 'X=1\nY="two words" # not this\nZ=\'$$literal\'\n', 'b.env': 'Y=2\n' },
      },
    )
    expect(main(spec).environment).toEqual({ X: '3', Y: '2', Z: '$$literal', OUT: 'side' })
  })

  it('a missing env_file is a fault that says where it was looked for', async () => {
    expect(await refuseOne('env_file: prod.env')).toMatchObject({
      message: 'the env_file "prod.env" cannot be read',
      hint: expect.stringContaining('/srv/shop/prod.env'),
    })
  })

  it('keeps numbers of the environment as they are written', async () => {
    expect(main(await acceptOne('environment: {V: 1.10, OCT: 0755, T: true, N: 1e3}')).environment).toEqual({
      V: '1.10',
      OCT: '0755',
      T: 'true',
      N: '1e3',
    })
  })
})

describe('anchors, merge keys, extends, include, several files', () => {
  it('merge keys give what is not said, and a list of them its first', async () => {
    const { app } = await accept(
      'x-a: &a {restart: always, user: one}\nx-b: &b {user: two, init: true}\nservices:\n  web: {<<: [*a, *b], image: "a:1"}\n  other: {<<: *b, image: "b:1", user: own}\n',
    )
    expect(app.services.map((service) => [main(service).user, main(service).init])).toEqual([
      ['one', true],
      ['own', true],
    ])
  })

  it('a fault inside an anchor points at the use', async () => {
    expect((await refuse('x-a: &a {replicas: x}\nservices:\n  web:\n    image: a:1\n    deploy: *a\n'))[0]).toMatchObject({
      path: '/services/web/deploy/replicas',
    })
  })

  it('extends a service of the same and of another file, whose paths count from there', async () => {
    const { app } = await accept(
      'services:\n  base: {image: "a:1", environment: [A=1, B=1], profiles: [never]}\n  web:\n    extends: {service: common, file: lib/base.yaml}\n    environment: {B: "2"}\n',
      {
        files: {
          'lib/base.yaml':
            'services:\n  common:\n    image: lib:1\n    env_file: x.env\n    volumes: ["./data:/data"]\n    environment: [A=1, B=1]\n',
          'lib/x.env': 'FROM=lib\n',
        },
      },
    )
    const web = app.services[0]
    if (web === undefined) throw new Error('none')
    expect(main(web)).toMatchObject({
      image: 'lib:1',
      environment: { FROM: 'lib', A: '1', B: '2' },
      mounts: [{ source: '/srv/shop/lib/data' }],
    })
  })

  it('refuses services that extend each other in a circle, and unknown ones with a suggestion', async () => {
    expect((await refuse('services: {a: {image: "a:1", extends: b}, b: {extends: a}}'))[0]?.message).toMatch(/circle: b → a → b/)
    expect((await refuse('services: {webb: {image: "a:1"}, x: {image: "a:1", extends: {service: web}}}'))[0]?.hint).toBe(
      'did you mean "webb"?',
    )
  })

  it('includes other files with their own .env', async () => {
    const { app } = await accept('include: [db/compose.yaml]\nservices: {web: {image: "a:1", depends_on: [db]}}', {
      files: { 'db/compose.yaml': 'services: {db: {image: "pg:${V}", expose: [5432]}}', 'db/.env': 'V=15\n' },
    })
    expect(app.services.map((service) => main(service).image)).toEqual(['a:1', 'pg:15'])
  })

  it('refuses files that include each other for ever', async () => {
    const faults = await refuse('include: a.yaml\nservices: {w: {image: "a:1"}}', {
      files: { 'a.yaml': 'include: a.yaml\nservices: {}\n' },
    })
    expect(faults[0]?.message).toMatch(/circle/)
  })

  it('lays further files over the first, with !reset and !override', async () => {
    const { app } = await accept(
      'services:\n  web: {image: "a:1", ports: ["80:80"], command: [one], environment: {A: "1"}, dns: [1.1.1.1]}\n',
      {
        overrides: [
          {
            fileName: '/srv/shop/prod.yaml',
            text: 'services:\n  web:\n    ports: !override ["90:80"]\n    command: [two]\n    environment: [B=2]\n    dns: !reset []\n',
          },
        ],
      },
    )
    const web = app.services[0]
    if (web === undefined) throw new Error('none')
    expect(web.published.map((port) => port.port)).toEqual([90])
    expect(main(web)).toMatchObject({ command: ['two'], environment: { A: '1', B: '2' }, dns: [] })
  })
})

describe('ports and access', () => {
  it('reads every short form', async () => {
    const spec = await acceptOne(
      'ports: ["3000", "3000-3001:4000-4001", 8080:80, "0.0.0.0:81:81", "6060:6060/udp", "[::]:82:82"]',
    )
    expect(spec.published.map((port) => `${port.port}:${port.containerPort}/${port.protocol}`)).toEqual([
      '3000:4000/tcp',
      '3001:4001/tcp',
      '8080:80/tcp',
      '81:81/tcp',
      '6060:6060/udp',
      '82:82/tcp',
    ])
    expect(spec.unit.ports.map((port) => port.containerPort)).toEqual([3000, 4000, 4001, 80, 81, 6060, 82])
  })

  it('reads the long form', async () => {
    const spec = await acceptOne('ports: [{target: 80, published: "8080", mode: host, app_protocol: http, name: web}]')
    expect(spec.published).toEqual([{ port: 8080, containerPort: 80, protocol: 'http', mode: 'host' }])
    expect(spec.unit.ports).toEqual([{ containerPort: 80, protocol: 'http', name: 'web' }])
    expect(spec.update.order).toBe('stop-first')
  })

  it('a published port is public with a warning, an exposed one needs a key', async () => {
    const { app, warnings } = await accept(
      'services: {web: {image: "a:1", ports: ["80:80"]}, api: {image: "a:1", expose: ["80"]}}',
    )
    expect(app.services.map((service) => service.unit.access.public)).toEqual([true, false])
    expect(warnings).toEqual(['port 80 is published without x-rubato.access: anybody may call it'])
  })

  it('a port published on a loopback address is never opened to others', async () => {
    const { app, warnings } = await accept('services: {db: {image: "a:1", ports: ["127.0.0.1:5432:5432"]}}')
    expect(app.services[0]).toMatchObject({
      published: [],
      unit: { access: { public: false }, ports: [{ containerPort: 5432 }] },
    })
    expect(warnings[0]).toMatch(/no node listens on 5432/)
  })

  it('access rules make a port speak http, and are refused on one that says tcp', async () => {
    const spec = await acceptOne('expose: ["80"]\nx-rubato: {access: {allow: [shop-web, "role:operator", web], methods: [GET]}}')
    expect(spec.unit.ports[0]?.protocol).toBe('http')
    expect(spec.unit.access).toEqual({
      public: false,
      sameApp: false,
      anyKey: false,
      allow: ['shop-web', 'web', 'shop/web'],
      roles: ['operator'],
      methods: ['GET'],
      pathPrefixes: [],
    })
    expect((await refuseOne('expose: ["80"]\nx-rubato: {protocol: tcp, access: {allow: [a]}}')).message).toMatch(/speaks tcp/)
    expect((await acceptOne('ports: ["5432:5432"]\nx-rubato: {access: {public: true}}')).unit.ports[0]?.protocol).toBe('tcp')
  })

  it('refuses what is no port, and ranges that do not match or are too large', async () => {
    for (const port of [
      '0:80',
      '80:0',
      '80:70000',
      'a:b',
      '1:2:3:4',
      '80:80/sctp',
      '10-20:5-6',
      '1000-9000:1000-9000',
      '10.0.0.1:80:80',
    ])
      await refuseOne(`ports: ["${port}"]`)
  })
})

describe('volumes, configs, secrets', () => {
  it('reads named volumes, binds, anonymous volumes and tmpfs', async () => {
    const { app } = await accept(
      'services:\n  web:\n    image: a:1\n    volumes: ["data:/data", "./conf:/conf:ro", "~/x:/x", /cache, {type: tmpfs, target: /t, tmpfs: {size: 64m}}]\n    tmpfs: ["/run/app:rw,noexec,size=1m"]\nvolumes: {data: , other: {name: o}}\n',
      { environment: { HOME: '/home/me' } },
    )
    expect(app.services[0]?.unit.containers[0]?.mounts).toEqual([
      { kind: 'volume', source: 'shop_data', target: '/data', readOnly: false },
      { kind: 'bind', source: '/srv/shop/conf', target: '/conf', readOnly: true },
      { kind: 'bind', source: '/home/me/x', target: '/x', readOnly: false },
      { kind: 'volume', source: '', target: '/cache', readOnly: false },
      { kind: 'tmpfs', source: '', target: '/t', readOnly: false, sizeBytes: 64 * 2 ** 20 },
      { kind: 'tmpfs', source: '', target: '/run/app', readOnly: false, sizeBytes: 2 ** 20 },
    ])
    expect(app.services[0]?.update.order).toBe('stop-first')
  })

  it('an undeclared volume, config, secret or network is a fault with a suggestion', async () => {
    const faults = await refuse(
      'services:\n  web: {image: "a:1", volumes: ["dat:/d"], configs: [con], secrets: [sec], networks: [bak]}\nvolumes: {data: }\nconfigs: {conf: {content: x}}\nsecrets: {secr: {environment: X}}\nnetworks: {back: }\n',
    )
    expect(faults.map((fault) => fault.hint)).toEqual([
      'did you mean "data"?',
      'did you mean "conf"?',
      'did you mean "secr"?',
      'did you mean "back"?',
    ])
  })

  it('carries configs and secrets with Compose targets and modes', async () => {
    const { app } = await accept(
      'services:\n  web:\n    image: a:1\n    configs: [{source: c, target: /etc/c.conf, mode: 0440}]\n    secrets: [f, {source: e, target: token}]\nconfigs: {c: {content: "v=${V}"}}\nsecrets: {f: {file: ./f.txt}, e: {environment: TOKEN}}\n',
      { environment: { V: '1', TOKEN: 't0' }, files: { 'f.txt': 'file' } },
    )
    const files = app.services[0]?.unit.containers[0]?.files ?? []
    expect(
      files.map((file) => [file.target, file.mode, Buffer.from(file.contentBase64, 'base64').toString(), file.secret]),
    ).toEqual([
      ['/etc/c.conf', 0o440, 'v=1', false],
      ['/run/secrets/f', 0o444, 'file', true],
      ['/run/secrets/token', 0o444, 't0', true],
    ])
  })

  it('driver options: a bind becomes a bind, network storage is refused', async () => {
    const volume = (options: string) =>
      `services: {web: {image: "a:1", volumes: ["v:/v"]}}\nvolumes: {v: {driver: local, driver_opts: ${options}}}`
    const { app } = await accept(volume('{type: none, o: bind, device: /mnt/disk}'))
    expect(app.services[0]?.unit.containers[0]?.mounts[0]).toMatchObject({ kind: 'bind', source: '/mnt/disk' })
    expect((await refuse(volume('{type: nfs, o: "addr=10.0.0.1", device: ":/x"}')))[0]?.message).toMatch(/nfs/)
    expect((await refuse(volume('{type: none, o: bind, device: /etc}')))[0]?.message).toMatch(/forbidden/)
  })
})

describe('health, restarts, dependencies, sidecars', () => {
  it('reads health checks with Compose defaults', async () => {
    expect(main(await acceptOne('healthcheck: {test: "curl -f localhost"}')).health).toEqual({
      probe: { kind: 'exec', argv: ['/bin/sh', '-c', 'curl -f localhost'] },
      intervalMs: 30_000,
      timeoutMs: 30_000,
      retries: 3,
      startPeriodMs: 0,
      startIntervalMs: 5_000,
    })
    expect(main(await acceptOne('healthcheck: {test: [CMD, pg_isready], interval: 1m30s}')).health).toMatchObject({
      probe: { argv: ['pg_isready'] },
      intervalMs: 90_000,
    })
    expect(main(await acceptOne('healthcheck: {test: [NONE]}')).health).toBeUndefined()
    expect(main(await acceptOne('healthcheck: {disable: true}')).health).toBeUndefined()
    expect(
      main(await acceptOne('expose: [80]\nhealthcheck: {interval: 2s}\nx-rubato: {health: {http: /ok}}')).health,
    ).toMatchObject({ probe: { kind: 'http', port: 80, path: '/ok' }, intervalMs: 2_000 })
    expect((await refuseOne('healthcheck: {test: a, interval: 30}')).hint).toBe('write "30s" for seconds')
  })

  it('reads restart policies; what others wait for may end', async () => {
    const conditionOf = async (service: string) => main(await acceptOne(service)).restart
    expect((await conditionOf('restart: "no"')).condition).toBe('none')
    expect((await conditionOf('restart: no')).condition).toBe('none')
    expect(await conditionOf('restart: on-failure:3')).toMatchObject({ condition: 'on-failure', maxAttempts: 3 })
    expect(await conditionOf('deploy: {restart_policy: {condition: on-failure, delay: 5s, window: 2m}}')).toMatchObject({
      condition: 'on-failure',
      delayMs: 5_000,
      windowMs: 120_000,
    })
    const { app } = await accept(
      'services: {web: {image: "a:1", depends_on: {init: {condition: service_completed_successfully}}}, init: {image: "b:1"}}',
    )
    expect(app.services.map((service) => main(service).restart.condition)).toEqual(['any', 'on-failure'])
  })

  it('refuses circles, unknown services, and those left out for their profile', async () => {
    expect(
      (
        await refuse(
          'services: {a: {image: "a:1", depends_on: [b]}, b: {image: "a:1", depends_on: [c]}, c: {image: "a:1", links: [a]}}',
        )
      )[0]?.message,
    ).toMatch(/circle: a → b → c → a/)
    expect((await refuseOne('depends_on: [wbe]')).hint).toBe('did you mean "web"?')
    const text = 'services: {web: {image: "a:1", depends_on: [dbg]}, dbg: {image: "b:1", profiles: [debug]}}'
    expect((await refuse(text))[0]?.message).toMatch(/left out/)
    expect((await accept(text, { profiles: ['debug'] })).app.services).toHaveLength(2)
    expect(
      (await accept(text.replace('[dbg]', '{dbg: {condition: service_started, required: false}}'))).app.services,
    ).toHaveLength(1)
  })

  it('a service in the network of another becomes its sidecar', async () => {
    const { app } = await accept(
      'services:\n  web: {image: "a:1", ports: ["80:80"], mem_reservation: 64m, depends_on: [proxy]}\n  proxy: {image: "p:1", network_mode: "service:web", expose: [9000], mem_reservation: 32m, depends_on: [web, db]}\n  db: {image: "d:1", expose: [1], depends_on: {x: {condition: service_started}}}\n  x: {image: "x:1", expose: [2]}\n',
    )
    expect(app.services.map((service) => service.name)).toEqual(['web', 'db', 'x'])
    expect(app.services[0]).toMatchObject({
      dependsOn: [{ service: 'db', condition: 'started', required: true }],
      unit: {
        containers: [{ name: 'web' }, { name: 'proxy' }],
        ports: [{ containerPort: 80 }, { containerPort: 9000 }],
        reservations: { memoryBytes: 96 * 2 ** 20 },
      },
    })
  })

  it('refuses sidecars that publish, scale, or go in circles', async () => {
    expect(
      (await refuse('services: {a: {image: "a:1"}, b: {image: "a:1", network_mode: "service:a", ports: ["80:80"]}}'))[0]?.message,
    ).toMatch(/cannot publish/)
    expect(
      (await refuse('services: {a: {image: "a:1", network_mode: "service:b"}, b: {image: "a:1", network_mode: "service:a"}}'))
        .map((fault) => fault.message)
        .join(),
    ).toMatch(/circle/)
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
