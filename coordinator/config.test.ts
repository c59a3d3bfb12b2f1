import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { agentSettings, loadAgentConfig } from '../agent/config.ts'
import { ConfigError } from '../shared/errors.ts'
import { envName, flagName, type SettingsSources } from '../shared/settings.ts'
import { coordinatorSettings, loadCoordinatorConfig } from './config.ts'
import { DEFAULT_WEIGHTS } from './placement/model.ts'

function sourcesOf(more: {
  argv?: string[]
  env?: Record<string, string>
  file?: string
  files?: Record<string, string>
  modes?: Record<string, number>
}): SettingsSources {
  const files: Record<string, string> = { ...more.files, ...(more.file === undefined ? {} : { '/c.yaml': more.file }) }
  return {
    argv: [...(more.file === undefined ? [] : ['--config', '/c.yaml']), ...(more.argv ?? [])],
    env: more.env ?? {},
    readFile: async (path) => files[path] ?? null,
    fileMode: async (path) => (path in files ? (more.modes?.[path] ?? 0o600) : null),
  }
}

async function faultsOf(load: Promise<unknown>): Promise<string[]> {
  const error = await load.catch((thrown: unknown) => thrown)
  if (!(error instanceof ConfigError)) throw new Error(`no ConfigError: ${String(error)}`)
  return error.faults.map(
    (fault) =>
      `${fault.file ? `${fault.file}:${fault.line ?? '?'} ` : ''}${fault.path}: ${fault.message}${fault.hint ? ` ${fault.hint}` : ''}`,
  )
}

describe('the coordinator’s configuration', () => {
  it('has a default for everything, and is frozen', async () => {
    const config = await loadCoordinatorConfig(sourcesOf({}))
    expect(config).toMatchObject({
      listen: { host: '127.0.0.1', port: 7600 },
      advertiseUrls: ['http://127.0.0.1:7600'],
      tls: { kind: 'off' },
      liveness: { heartbeatMs: 5000, suspectMs: 15_000, lostMs: 45_000, unknownForMs: 300_000 },
      fleet: { minNodeAgeMs: 600_000, budgetUsdPerMonth: null },
    })
    for (const part of [config, config.listen, config.fleet, config.pools, config.tls]) expect(Object.isFrozen(part)).toBe(true)
  })

  it('flag wins over variable, variable over file, file over default', async () => {
    const file = 'fleet:\n  minNodeAge: 1m\n  downInterval: 2m\n  joinDeadline: 3m\n'
    const env = { RUBATO_FLEET_DOWN_INTERVAL: '20s', RUBATO_FLEET_JOIN_DEADLINE: '30s' }
    const config = await loadCoordinatorConfig(sourcesOf({ file, env, argv: ['--fleet-join-deadline=3s', '--fleet-enabled'] }))
    expect(config.fleet).toMatchObject({
      minNodeAgeMs: 60_000,
      downIntervalMs: 20_000,
      joinDeadlineMs: 3000,
      drainDeadlineMs: 900_000,
      enabled: true,
    })
  })

  it('§7: placement’s weights are settings; those not given keep their default, negative ones are refused', async () => {
    const config = await loadCoordinatorConfig(
      sourcesOf({ file: 'placement:\n  weights:\n    spreadOver: 2\n    imageAbsent: 5\n' }),
    )
    expect(config.placement.weights).toEqual({ ...DEFAULT_WEIGHTS, spreadOver: 2, imageAbsent: 5 })
    const negative = loadCoordinatorConfig(sourcesOf({ file: 'placement:\n  weights:\n    use: -1\n' }))
    expect((await faultsOf(negative)).join()).toContain('placement.weights.use')
  })

  it('§11: a Prometheus for the past has a token in a file of its own, and no other way to say it', async () => {
    const file =
      'history:\n  prometheus:\n    url: https://prometheus.example.org/base\n    tokenFile: /token\n    scrapeInterval: 15s\n'
    const config = await loadCoordinatorConfig(sourcesOf({ file, files: { '/token': 'abc-secret\n' } }))
    expect(config.history.prometheus).toEqual({
      url: 'https://prometheus.example.org/base',
      token: 'abc-secret',
      caPem: null,
      scrapeIntervalMs: 15_000,
    })
    expect(JSON.stringify(config.printable())).not.toContain('abc-secret')
    expect((await loadCoordinatorConfig(sourcesOf({}))).history.prometheus).toBeNull()
    const url = (text: string, more = '') => sourcesOf({ file: `history:\n  prometheus:\n    url: ${text}\n${more}` })
    for (const [sources, expected] of [
      [url('http://me:pw@127.0.0.1:9090'), /\/c\.yaml:3 history\.prometheus\.url: A password in a URL/],
      [url('ftp://prometheus'), /no http or https URL/],
      [url('http://127.0.0.1/?q=1'), /up to where \/api\/v1 follows/],
      [url('http://10.0.0.1:9090', '    tokenFile: /none\n'), /plain HTTP/],
      [url('http://127.0.0.1:9090', '    caFile: /none\n'), /\/none does not exist/],
      [url('http://127.0.0.1:9090', '    scrapeInterval: 2m\n'), /at least once a minute/],
      [sourcesOf({ file: 'history:\n  prometheus:\n    tokenFile: /t\n' }), /of no use without history\.prometheus\.url/],
    ] as const) {
      const faults = await faultsOf(loadCoordinatorConfig(sources))
      expect(faults.join('\n')).toMatch(expected)
      expect(faults.join('\n')).not.toContain(':pw@')
    }
  })

  it('off loopback it speaks TLS with a certificate for the names it is reached by', async () => {
    const argv = ['--listen', '0.0.0.0:7600', '--advertise-urls', 'https://c.example.org:7600,https://10.0.0.1:7600']
    const config = await loadCoordinatorConfig(sourcesOf({ argv }))
    expect(config.tls).toEqual({ kind: 'auto', hosts: ['c.example.org', '10.0.0.1', 'localhost', '127.0.0.1'] })
    expect((await loadCoordinatorConfig(sourcesOf({ argv: ['--listen', '10.0.0.1:7600'] }))).advertiseUrls).toEqual([
      'https://10.0.0.1:7600',
    ])
  })

  it('fills pools from their provider’s offerings', async () => {
    const file = `providers:
  local: { offerings: { small: { cpus: "0.5", memory: 512M, priceUsdPerHour: 0.01 } } }
  lab: { kind: exec, command: [/bin/cloud] }
pools:
  - { name: a, provider: local, offering: small, max: 3 }
  - { name: b, provider: lab, capacity: { cpus: 2, memory: 4G }, priceUsdPerHour: 0 }
  - { name: c, provider: lab, capacity: { cpus: 2, memory: 4G }, static: true }
`
    const config = await loadCoordinatorConfig(sourcesOf({ file }))
    expect(
      config.pools.map(({ capacity, priceUsdPerHour, max }) => [capacity.cpuMillis, capacity.memoryBytes, priceUsdPerHour, max]),
    ).toEqual([
      [500, 2 ** 29, 0.01, 3],
      [2000, 4 * 2 ** 30, 0, 10],
      [2000, 4 * 2 ** 30, 0, 10],
    ])
    expect(config.providers.lab).toMatchObject({ kind: 'exec', createTimeout: 300_000 })
  })

  const TABLE: readonly (readonly [string, Parameters<typeof sourcesOf>[0], RegExp])[] = [
    ['unknown key', { file: 'listen: 127.0.0.1:1\nlissten: x' }, /\/c\.yaml:2 lissten: .*Did you mean listen\?/],
    [
      'unknown key in a group',
      { file: 'fleet:\n  # a comment\n  minNodeAg: 1m' },
      /\/c\.yaml:3 fleet\.minNodeAg: .*Did you mean minNodeAge\?/,
    ],
    ['unknown flag', { argv: ['--lissten', '1'] }, /^--lissten: .*Did you mean --listen\?/],
    ['mistyped variable', { env: { RUBATO_LISTN: '1' } }, /^RUBATO_LISTN: .*Did you mean RUBATO_LISTEN\?/],
    ['bad duration', { file: 'fleet:\n  minNodeAge: ten' }, /\/c\.yaml:2 fleet\.minNodeAge: "ten" is no duration/],
    ['empty variable', { env: { RUBATO_LISTEN: '' } }, /^RUBATO_LISTEN: .*empty/],
    ['key without value', { file: 'listen:' }, /\/c\.yaml:1 listen: .*no value/],
    ['flag without value', { argv: ['--listen'] }, /^--listen: .*value/],
    ['flag given twice', { argv: ['--listen', ':1', '--listen', ':2'] }, /twice/],
    ['stray argument', { argv: ['start'] }, /^start: /],
    ['not YAML', { file: 'a: [1' }, /\/c\.yaml:1 /],
    ['duplicate key', { file: 'listen: :1\nlisten: :2' }, /\/c\.yaml:2 .*unique/],
    ['not a mapping', { file: '- 1' }, /keys and values/],
    [
      'alias bomb',
      {
        file: `a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [${Array(20).fill('*a').join(',')}]\nc: &c [${Array(20).fill('*b').join(',')}]\nd: [${Array(20).fill('*c').join(',')}]`,
      },
      /expands too far/,
    ],
    [
      'a pool that would be outside the budget',
      {
        file: 'providers: { lab: { kind: exec, command: [x] } }\npools:\n  - { name: a, provider: lab, capacity: { cpus: 2, memory: 4G } }',
      },
      /\/c\.yaml:3 pools.*The pool a needs a priceUsdPerHour/,
    ],
    ['missing file', { argv: ['--config', '/none.yaml'] }, /\/none\.yaml does not exist/],
    ['bad host:port', { argv: ['--listen', '127.0.0.1'] }, /no host:port/],
    ['port too large', { argv: ['--listen', ':70000'] }, /no host:port/],
    ['every address without a URL', { argv: ['--listen', ':7600'] }, /advertiseUrls/],
    ['plain HTTP off loopback', { argv: ['--listen', '10.0.0.1:1', '--tls-mode', 'off'] }, /loopback only/],
    ['URL with a password', { argv: ['--advertise-urls', 'https://a:b@c'] }, /no URL/],
    ['files mode without files', { argv: ['--tls-mode', 'files'] }, /needs tls\.certFile/],
    [
      'readable key',
      {
        argv: ['--tls-mode', 'files', '--tls-cert-file', '/a', '--tls-key-file', '/b'],
        files: { '/a': 'x', '/b': 'y' },
        modes: { '/b': 0o644 },
      },
      /\/b holds a secret/,
    ],
    ['lost before suspect', { argv: ['--liveness-lost', '10s'] }, /longer than liveness\.suspect/],
    ['not a number', { argv: ['--budget-usd-per-month', 'NaN'] }, /no number/],
    [
      'unknown provider',
      { file: 'pools:\n  - name: a\n    provider: x' },
      /\/c\.yaml:3 pools\.0\.provider: There is no provider x/,
    ],
    [
      'min above max',
      {
        file: 'providers: { e: { kind: exec, command: [x] } }\npools:\n  - { name: a, provider: e, min: 5, max: 2, capacity: { cpus: 1, memory: 1G } }',
      },
      /\/c\.yaml:3 .*larger than max/,
    ],
    [
      'two pools of one name',
      {
        file: 'providers: { e: { kind: exec, command: [x] } }\npools:\n  - &p { name: a, provider: e, capacity: { cpus: 1, memory: 1G } }\n  - *p',
      },
      /Two pools are named a/,
    ],
    [
      'unknown key in a pool',
      { file: 'pools:\n  - name: a\n    provider: x\n    colour: red' },
      /\/c\.yaml:4 pools\.0\.colour: There is no such key/,
    ],
    [
      'bad size in a pool',
      { file: 'pools:\n  - name: a\n    provider: x\n    capacity: { cpus: 1, memory: much }' },
      /\/c\.yaml:4 pools\.0\.capacity\.memory: "much" is no size/,
    ],
    ['unknown kind of provider', { file: 'providers:\n  magic: {}' }, /\/c\.yaml:\d providers\.magic/],
    ['pool from a flag', { argv: ['--pools', 'x'] }, /no such flag/],
  ]
  it.each(TABLE)('§3 Config: %s is refused by key and line', async (_, given, expected) => {
    expect((await faultsOf(loadCoordinatorConfig(sourcesOf(given)))).join('\n')).toMatch(expected)
  })

  it('§3 Config: every fault is reported at once', async () => {
    const faults = await faultsOf(
      loadCoordinatorConfig(
        sourcesOf({
          file: 'listen: x\nfoo: 1\nfleet: { minNodeAge: 1 }',
          argv: ['--dns-listen', 'y'],
          env: { RUBATO_LOG_LEVEL: 'loud' },
        }),
      ),
    )
    expect(faults).toHaveLength(5)
  })

  it('ignores variables of others that share the prefix', async () => {
    await loadCoordinatorConfig(
      sourcesOf({ env: { RUBATO_TEST: 'unit', RUBATO_INSTANCE: 'a/b/1/1', RUBATO_AGENT_TOKEN: 'x', HOME: '' } }),
    )
  })
})

describe('schedulers of the coordinator’s configuration', () => {
  it('are modules or URLs, with a deadline of 250 ms; the token is in nothing that is printed', async () => {
    const file = [
      'schedulers:',
      '  pack: { module: /etc/rubato/pack.mjs, deadline: 1s }',
      '  near: { url: "https://placer.internal/v1", tokenFile: /etc/t }',
    ].join('\n')
    const config = await loadCoordinatorConfig(sourcesOf({ file, files: { '/etc/t': 'secret-word\n' } }))
    expect(config.schedulers).toEqual([
      { kind: 'module', name: 'pack', path: '/etc/rubato/pack.mjs', deadlineMs: 1_000, maxCandidates: 1_000 },
      {
        kind: 'http',
        name: 'near',
        url: 'https://placer.internal/v1',
        token: 'secret-word',
        caPem: null,
        deadlineMs: 250,
        maxCandidates: 1_000,
      },
    ])
    expect(JSON.stringify(config.printable())).not.toContain('secret-word')
  })

  it.each([
    ['{ url: ftp://x/ }', 'schedulers.s.url: ftp://x/ is no http or https URL.'],
    ['{ url: "http://me:word@x/" }', 'schedulers.s.url: A password in a URL ends up in logs. Use tokenFile.'],
    ['{ url: "http://10.0.0.1/", tokenFile: /etc/t }', 'schedulers.s.url: A token over plain HTTP can be read on its way.'],
    [
      '{ url: "https://x/", tokenFile: /etc/open }',
      'schedulers.s.tokenFile: The file /etc/open holds a secret and can be read by others',
    ],
    ['{ url: "https://x/", tokenFile: /etc/two }', 'schedulers.s.tokenFile: The file /etc/two holds no token'],
    ['{ url: "https://x/", caFile: /nowhere }', 'schedulers.s.caFile: The file /nowhere does not exist.'],
    ['{ url: "https://x/", caFile: /etc/t }', 'schedulers.s.caFile: The file /etc/t holds no certificate (PEM).'],
    ['{ url: "https://x/", deadline: 6s }', 'schedulers.s.deadline: A deadline is between 1ms and 5s.'],
    ['{ module: /m.mjs, maxCandidates: 5001 }', 'schedulers.s.maxCandidates: '],
    ['{ module: /m.mjs, url: "https://x/" }', 'schedulers.s.url: There is no such key.'],
    ['{}', 'schedulers.s.url: '],
  ])('are refused with file, line and key: %s', async (entry, expected) => {
    const files = { '/etc/t': 'word', '/etc/open': 'word', '/etc/two': 'two words' }
    const file = `schedulers:\n  s: ${entry}\n`
    const faults = await faultsOf(loadCoordinatorConfig(sourcesOf({ file, files, modes: { '/etc/open': 0o644 } })))
    expect(faults.join('\n')).toContain(`/c.yaml:2 ${expected}`)
  })
})

describe('the agent’s configuration', () => {
  it('takes the token from a file of mode 0600 alone, and never prints it', async () => {
    const sources = (mode: number) =>
      sourcesOf({ argv: ['--token-file', '/t'], files: { '/t': 'rbtj_a_b_plain\n' }, modes: { '/t': mode } })
    const config = await loadAgentConfig(sources(0o600))
    expect(config.token).toBe('rbtj_a_b_plain')
    expect(JSON.stringify(config.printable())).not.toContain('rbtj_')
    expect((await faultsOf(loadAgentConfig(sources(0o640)))).join()).toMatch(/can be read by others \(mode 0640\)/)
  })

  it('a token file that is gone is no fault: it is removed after the join', async () => {
    expect((await loadAgentConfig(sourcesOf({ argv: ['--token-file', '/gone'] }))).token).toBeNull()
  })

  it('I12: a token is refused as a flag, and in a file that others can read', async () => {
    expect((await faultsOf(loadAgentConfig(sourcesOf({ argv: ['--token', 'rbtj_x'] })))).join()).toMatch(/not given by a flag/)
    const faults = await faultsOf(loadAgentConfig(sourcesOf({ file: 'token: rbtj_x', modes: { '/c.yaml': 0o644 } })))
    expect(faults.join()).toMatch(/\/c\.yaml:1 token: .*chmod 600/)
    expect(faults.join()).not.toContain('rbtj_x')
    expect(
      JSON.stringify((await loadAgentConfig(sourcesOf({ env: { RUBATO_AGENT_TOKEN: 'rbtj_y' } }))).printable()),
    ).not.toContain('rbtj_y')
  })

  it.each([
    ['ports', { argv: ['--gateway-ports', '300-200'] }, /no range of ports/],
    ['engine', { argv: ['--engine', 'podman'] }, /none of docker, process, auto/],
    ['labels', { argv: ['--labels', 'a'] }, /no key=value/],
    ['memory', { argv: ['--capacity-memory', 'much'] }, /no size/],
    ['slots', { file: 'capacity: { slots: 1.5 }' }, /no whole number/],
    ['address', { argv: ['--address', 'a b'] }, /expected form/],
    ['both tokens', { argv: ['--token-file', '/t'], env: { RUBATO_AGENT_TOKEN: 'x' } }, /Both token and tokenFile/],
  ])('§3 Config: bad %s are refused', async (_, given, expected) => {
    expect((await faultsOf(loadAgentConfig(sourcesOf(given)))).join()).toMatch(expected)
  })

  it('reads everything that it can be told', async () => {
    const file = `urls: [https://a:7600]\nlabels: { disk: ssd, rack: 7 }\ncapacity: { cpus: 1.5, memory: 2G, disk: 10G, slots: 5 }\nconsul: { address: 127.0.0.1:8500 }\nregisterForeign: false\n`
    expect(await loadAgentConfig(sourcesOf({ file }))).toMatchObject({
      labels: { disk: 'ssd', rack: '7' },
      capacity: { cpuMillis: 1500, memoryBytes: 2 ** 31, diskBytes: 10 * 2 ** 30, slots: 5 },
      consul: { address: { host: '127.0.0.1', port: 8500 }, token: null },
      registerForeign: false,
      gatewayPortRange: { from: 20_000, to: 29_999 },
    })
  })
})

describe('docs/configuration.md', () => {
  const text = readFileSync(new URL('../docs/configuration.md', import.meta.url), 'utf8')
  it.each([
    ['coordinator', coordinatorSettings],
    ['agent', agentSettings],
  ])('lists every setting of the %s with its default', (_, settings) => {
    for (const [key, setting] of Object.entries(settings)) {
      const row = text.split('\n').find((line) => line.startsWith(`| \`${key}\` |`) && line.includes(setting.doc))
      expect(row, `${key} (${flagName(key)}, ${envName('RUBATO_', key)}) has no row with its present meaning`).toBeDefined()
      expect(row).toContain((setting.defaultText ?? 'none').replaceAll('|', '\\|'))
    }
  })
})
