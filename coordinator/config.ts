/** The coordinator's settings: flag > RUBATO_… variable > file (`--config`) > default. docs/configuration.md lists them all. */
import { isIP } from 'node:net'
import { join } from 'node:path'
import { z } from 'zod'
import type { Fault } from '../shared/errors.ts'
import type { Pool } from '../shared/model/node.ts'
import {
  booleanSetting,
  bytesSetting,
  durationSetting,
  type HostPort,
  hostPortSetting,
  numberSetting,
  oneOfSetting,
  optional,
  structureSetting,
  textSetting,
  urlListSetting,
} from '../shared/setting-kinds.ts'
import { resolveSchedulers, type SchedulerConfig, schedulersSchema, type SchedulersSettings } from './schedulers/config.ts'
import { decidingConfig } from './deciding-settings.ts'
import type { FleetConfig } from './fleet/config.ts'
import { PROMETHEUS_SETTINGS, type PrometheusConfig, resolvePrometheus } from './history/prometheus/config.ts'
import { configError, type LoadedSettings, loadSettings, type SettingsSources } from '../shared/settings.ts'
import type { ScoreWeights } from './placement/model.ts'
import { WEIGHT_SETTINGS } from './placement/weights.ts'
import { type PoolSettings, poolSchema, type ProviderSettings, providersSchema } from './pool-settings.ts'

/** Every setting of the coordinator. */
export const coordinatorSettings = {
  stateDir: textSetting({ doc: 'Directory of everything the coordinator keeps.', default: '/var/lib/rubato' }),
  listen: hostPortSetting({ doc: 'Where the API and the agents’ link listen.', default: '127.0.0.1:7600' }),
  catalogListen: optional(
    hostPortSetting({ doc: 'Where the Consul-compatible catalog listens.', default: '127.0.0.1:7650' }),
    'off',
  ),
  dnsListen: optional(
    hostPortSetting({ doc: 'Where DNS of the catalog listens, UDP and TCP.', default: '127.0.0.1:7653' }),
    'off',
  ),
  advertiseUrls: urlListSetting({
    doc: 'URLs at which agents and machines reach this coordinator, best first. Needed when `listen` is every address (0.0.0.0).',
    default: [],
    defaultText: 'from listen',
  }),
  'tls.mode': oneOfSetting(['auto', 'off', 'files'], {
    doc: 'auto: plain HTTP on loopback, else TLS with a certificate of the cluster’s own authority. off: plain HTTP, on loopback only. files: your certificate.',
    default: 'auto',
  }),
  'tls.certFile': optional(textSetting({ doc: 'Certificate chain (PEM) for mode files.' })),
  'tls.keyFile': optional(textSetting({ doc: 'Private key (PEM, mode 0600) for mode files.' })),
  'tls.caFile': optional(
    textSetting({ doc: 'Authority (PEM) that agents pin, for mode files; without it they pin the certificate.' }),
  ),
  logLevel: oneOfSetting(['debug', 'info', 'warn', 'error', 'silent'], { doc: 'Least severe messages to log.', default: 'info' }),
  agentBinaryDir: optional(textSetting({ doc: 'Directory with rubato-agent-linux-x64 and -arm64, served to new machines.' })),
  budgetUsdPerMonth: optional(
    numberSetting({ doc: 'Most that all machines together may cost in a calendar month.' }, { min: 0, max: 1e9 }),
  ),
  pools: structureSetting<readonly PoolSettings[]>(z.array(poolSchema).max(200), 'list of pools', {
    doc: 'Kinds of machines that may be bought; see “Pools” below.',
    default: [],
  }),
  providers: structureSetting<Readonly<Record<string, ProviderSettings>>>(providersSchema, 'mapping of providers', {
    doc: 'Clouds by name; see “Providers” below.',
    default: {},
  }),
  'fleet.enabled': booleanSetting({ doc: 'Buy and delete machines at all.', default: true }),
  'fleet.minNodeAge': durationSetting({ doc: 'No machine younger than this is given back.', default: '10m' }),
  'fleet.downInterval': durationSetting({ doc: 'How often to look for machines that can be given back.', default: '60s' }),
  'fleet.joinDeadline': durationSetting({
    doc: 'A machine that has not joined by then is deleted and bought elsewhere.',
    default: '10m',
  }),
  'fleet.drainDeadline': durationSetting({ doc: 'A drain that takes longer is forced.', default: '15m' }),
  'fleet.reapInterval': durationSetting({ doc: 'How often to compare the clouds’ machines with ours.', default: '60s' }),
  'fleet.forceGrace': durationSetting(
    { doc: 'After a drain’s deadline, time for forced stops before the machine is deleted.', default: '2m' },
    0,
  ),
  'fleet.entrySettle': durationSetting(
    { doc: 'How long an emptied machine keeps its published ports, for callers that have not moved on.', default: '5s' },
    0,
  ),
  'fleet.orphanGrace': durationSetting({ doc: 'How long an unknown machine with our tag is left alone.', default: '2m' }, 0),
  'fleet.missing': durationSetting({ doc: 'A machine that no complete list shows for this long is lost.', default: '5m' }),
  'fleet.silentNode': durationSetting({ doc: 'A machine whose agent is silent for this long is given back.', default: '30m' }),
  'fleet.takeover': durationSetting({ doc: 'After a start, how long no unknown machine is deleted.', default: '5m' }, 0),
  'fleet.capacityCoolDown': durationSetting({
    doc: 'How long a pool rests after its cloud had no machine; doubles up to an hour.',
    default: '2m',
  }),
  'fleet.quotaCoolDown': durationSetting({ doc: 'How long a pool rests after its quota was used up.', default: '15m' }),
  'fleet.callTimeout': durationSetting({ doc: 'Longest call to a cloud.', default: '5m' }),
  'fleet.buyHold': durationSetting(
    { doc: 'How long work must fit nowhere before a machine is bought for it.', default: '500ms' },
    0,
  ),
  'fleet.maxParallelCreates': numberSetting(
    { doc: 'Machines ordered at the same time.', default: 10 },
    { min: 1, max: 1000, integer: true },
  ),
  'fleet.maxBuysPerPass': numberSetting(
    { doc: 'Machines ordered in one decision at most.', default: 50 },
    { min: 1, max: 10_000, integer: true },
  ),
  'fleet.headroomPercent': numberSetting(
    { doc: 'Part of each node that must stay free when another is given back.', default: 10 },
    { min: 0, max: 90 },
  ),
  'fleet.spareSlots': numberSetting(
    { doc: 'Room kept free for so many instances beside those wanted; pools may ask for more of their own.', default: 0 },
    { min: 0, max: 10_000, integer: true },
  ),
  'fleet.spareSlotCpus': numberSetting({ doc: 'CPUs of one spare slot.', default: 0.5 }, { min: 0, max: 1024 }),
  'fleet.spareSlotMemoryMiB': numberSetting({ doc: 'Memory of one spare slot.', default: 512 }, { min: 0, max: 2 ** 24 }),
  'fleet.slowBootFactor': numberSetting(
    {
      doc: 'A machine that takes this many times the p90 of its pool while work waits gets a stand-in from another pool. 0: never.',
      default: 2,
    },
    { min: 0, max: 100 },
  ),
  'fleet.maxParallelDrains': numberSetting(
    { doc: 'Nodes given back at the same time.', default: 1 },
    { min: 1, max: 1000, integer: true },
  ),
  'fleet.minSavingsRatio': numberSetting(
    {
      doc: 'A node goes only if its share of the price is at least this many times its share of the instances. 0: always.',
      default: 0.5,
    },
    { min: 0, max: 100 },
  ),
  'fleet.rebalance.maxMovesPerHour': numberSetting(
    { doc: 'Instances moved onto nodes that joined, per hour. 0: none.', default: 12 },
    { min: 0, max: 10_000, integer: true },
  ),
  'fleet.rebalance.imbalancePercent': numberSetting(
    { doc: 'How much fuller than a node that joined the fullest one must be, in percent of its capacity.', default: 40 },
    { min: 1, max: 100 },
  ),
  'liveness.heartbeat': durationSetting({ doc: 'How often an agent gives a sign of life.', default: '5s' }, 100),
  'liveness.suspect': durationSetting({ doc: 'Silence after which a node gets no new instances.', default: '15s' }, 100),
  'liveness.lost': durationSetting({ doc: 'Silence after which a node’s instances are replaced.', default: '45s' }, 100),
  'liveness.unknownFor': durationSetting(
    {
      doc: 'After a start, how long silence of a node means nothing. Agents may take 30 s to dial again: shorter risks replacing what runs.',
      default: '5m',
    },
    0,
  ),
  'liveness.reportInterval': durationSetting({ doc: 'How often agents report use and load.', default: '2s' }, 100),
  keysStaleAfter: durationSetting({ doc: 'How long an agent without a coordinator goes on authorizing.', default: '24h' }),
  'history.maxBytes': bytesSetting(
    { doc: 'Size of the file that keeps measured values; the oldest of the finest go first.', default: '1G' },
    { min: 2 ** 20 },
  ),
  ...PROMETHEUS_SETTINGS,
  'forecast.timeZone': textSetting({
    doc: 'Time zone in whose days and weeks demand repeats, such as Europe/Berlin; schedules of a service may name another.',
    default: 'UTC',
  }),
  'placement.strategy': oneOfSetting(['spread', 'binpack', 'random'], { doc: 'How nodes are ranked.', default: 'spread' }),
  'placement.evictedPercentPerHour': numberSetting(
    {
      doc: 'Part of all instances that may be evicted within an hour for more important ones, at least 10; half of them for one app. 0: none ever.',
      default: 10,
    },
    { min: 0, max: 100 },
  ),
  'placement.operatorMaxPriority': numberSetting(
    { doc: 'Highest priority of services that operators deploy; above it the role admin is needed.', default: 90 },
    { min: 0, max: 100, integer: true },
  ),
  'placement.pullAhead': booleanSetting({
    doc: 'Have nodes pull images before an instance needs them: of the next instances of services that may grow, and of updates.',
    default: true,
  }),
  ...WEIGHT_SETTINGS,
  schedulers: structureSetting<SchedulersSettings>(schedulersSchema, 'mapping of schedulers', {
    doc: 'Schedulers of your own by name, which app files can ask for; see “Schedulers” below.',
    default: {},
  }),
} as const

export interface CoordinatorConfig {
  readonly stateDir: string
  readonly listen: HostPort
  /** null: off. */
  readonly catalogListen: HostPort | null
  readonly dnsListen: HostPort | null
  /** Never empty: given, or made of `listen`. With port 0 in `listen` the caller replaces them once the port is known. */
  readonly advertiseUrls: readonly string[]
  readonly tls:
    | { readonly kind: 'off' }
    /** Certificate for these names, from the cluster's own authority. */
    | { readonly kind: 'auto'; readonly hosts: readonly string[] }
    | { readonly kind: 'files'; readonly certPem: string; readonly keyPem: string; readonly caPem: string | null }
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  /** null: `dist` of the program. */
  readonly agentBinaryDir: string | null
  readonly pools: readonly Pool[]
  readonly providers: Readonly<Record<string, ProviderSettings>>
  /** With `enabled: false` nothing is bought or deleted. */
  readonly fleet: FleetConfig & { readonly enabled: boolean }
  readonly liveness: {
    readonly heartbeatMs: number
    readonly suspectMs: number
    readonly lostMs: number
    readonly unknownForMs: number
    readonly reportIntervalMs: number
  }
  readonly keysStaleAfterMs: number
  readonly history: {
    readonly maxBytes: number
    /** What answers for the past; null: our own records alone. */
    readonly prometheus: PrometheusConfig | null
  }
  readonly forecast: { readonly timeZone: string }
  readonly placement: {
    readonly strategy: 'spread' | 'binpack' | 'random'
    readonly evictedPercentPerHour: number
    readonly operatorMaxPriority: number
    readonly pullAhead: boolean
    readonly weights: ScoreWeights
  }
  readonly schedulers: readonly SchedulerConfig[]
  /** All settings for people, secrets replaced. */
  printable(): Readonly<Record<string, unknown>>
}

export const COORDINATOR_ENV_PREFIX = 'RUBATO_'

/** Reads and checks everything; frozen. Throws ConfigError with every fault (the process exits 78). */
export async function loadCoordinatorConfig(sources: SettingsSources): Promise<CoordinatorConfig> {
  const loaded = await loadSettings(coordinatorSettings, COORDINATOR_ENV_PREFIX, sources)
  const { values } = loaded
  const faults: Fault[] = []
  const deciding = decidingConfig(loaded, values.providers, faults)
  const tls = await resolveTls(loaded, sources, faults)
  const schedulers = await resolveSchedulers(values.schedulers, (path) => loaded.locate('schedulers', path), sources, faults)
  const prometheus = await resolvePrometheus(values, (key) => loaded.locate(key), sources, faults)
  const advertiseUrls = resolveUrls(loaded, tls.kind === 'off' ? 'http' : 'https', faults)
  if (values['liveness.suspect'] <= values['liveness.heartbeat'])
    faults.push({ ...loaded.locate('liveness.suspect'), message: 'liveness.suspect must be longer than liveness.heartbeat.' })
  if (values['liveness.lost'] <= values['liveness.suspect'])
    faults.push({ ...loaded.locate('liveness.lost'), message: 'liveness.lost must be longer than liveness.suspect.' })
  if (faults.length > 0) throw configError(faults)
  return Object.freeze({
    stateDir: values.stateDir,
    listen: values.listen,
    catalogListen: values.catalogListen,
    dnsListen: values.dnsListen,
    advertiseUrls,
    tls,
    logLevel: values.logLevel,
    agentBinaryDir: values.agentBinaryDir,
    ...deciding,
    providers: values.providers,
    liveness: Object.freeze({
      heartbeatMs: values['liveness.heartbeat'],
      suspectMs: values['liveness.suspect'],
      lostMs: values['liveness.lost'],
      unknownForMs: values['liveness.unknownFor'],
      reportIntervalMs: values['liveness.reportInterval'],
    }),
    keysStaleAfterMs: values.keysStaleAfter,
    history: Object.freeze({ maxBytes: values['history.maxBytes'], prometheus }),
    schedulers: Object.freeze(schedulers),
    printable: loaded.printable,
  })
}

/** Whether only this host can reach the address. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
}

type Loaded = LoadedSettings<typeof coordinatorSettings>

async function resolveTls(loaded: Loaded, sources: SettingsSources, faults: Fault[]): Promise<CoordinatorConfig['tls']> {
  const { values } = loaded
  const local = isLoopback(values.listen.host)
  if (values['tls.mode'] === 'off' && !local)
    faults.push({
      ...loaded.locate('tls.mode'),
      message: 'Plain HTTP is for loopback only.',
      hint: 'Use tls.mode auto, or listen on 127.0.0.1.',
    })
  if (values['tls.mode'] === 'off' || (values['tls.mode'] === 'auto' && local)) return Object.freeze({ kind: 'off' })
  if (values['tls.mode'] === 'auto')
    return Object.freeze({ kind: 'auto', hosts: Object.freeze(hostsOf(values.listen.host, values.advertiseUrls)) })

  const read = async (key: 'tls.certFile' | 'tls.keyFile' | 'tls.caFile', needed: boolean, secret: boolean) => {
    const path = values[key]
    if (path === null) {
      if (needed) faults.push({ ...loaded.locate(key), message: `tls.mode files needs ${key}.` })
      return null
    }
    const text = await sources.readFile(path)
    if (text === null) faults.push({ ...loaded.locate(key), message: `The file ${path} does not exist.` })
    const mode = secret ? await sources.fileMode(path) : null
    if (mode !== null && (mode & 0o077) !== 0)
      faults.push({
        ...loaded.locate(key),
        message: `The file ${path} holds a secret and can be read by others.`,
        hint: `chmod 600 ${path}`,
      })
    return text
  }
  const certPem = (await read('tls.certFile', true, false)) ?? ''
  const keyPem = (await read('tls.keyFile', true, true)) ?? ''
  return Object.freeze({ kind: 'files', certPem, keyPem, caPem: await read('tls.caFile', false, false) })
}

function resolveUrls(loaded: Loaded, scheme: 'http' | 'https', faults: Fault[]): readonly string[] {
  const { advertiseUrls, listen } = loaded.values
  if (advertiseUrls.length > 0) return advertiseUrls.map((url) => new URL(url).origin)
  if (isWildcard(listen.host)) {
    faults.push({
      ...loaded.locate('listen'),
      message: 'With every address in `listen`, agents must be told which to use.',
      hint: 'Set advertiseUrls.',
    })
    return []
  }
  return [`${scheme}://${listen.host.includes(':') ? `[${listen.host}]` : listen.host}:${listen.port}`]
}

function hostsOf(listenHost: string, urls: readonly string[]): string[] {
  const hosts = urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, ''))
  return [...new Set([...hosts, ...(isWildcard(listenHost) ? [] : [listenHost]), 'localhost', '127.0.0.1'])]
}

function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}

/** Where measured values are kept; losing this file loses no state. */
export function historyPath(config: Pick<CoordinatorConfig, 'stateDir'>): string {
  return join(config.stateDir, 'history.db')
}

/** Where the embedded store keeps its file. */
export function databasePath(config: Pick<CoordinatorConfig, 'stateDir'>): string {
  return join(config.stateDir, 'rubato.db')
}
