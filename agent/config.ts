/** The agent's settings: flag > RUBATO_AGENT_… variable > file (`--config`) > default. docs/configuration.md lists them all. */
import type { Fault } from '../shared/errors.ts'
import type { Capacity } from '../shared/model/resources.ts'
import {
  booleanSetting,
  durationSetting,
  type HostPort,
  isBaseUrl,
  labelsSetting,
  listSetting,
  numberSetting,
  oneOfSetting,
  optional,
  textSetting,
} from '../shared/setting-kinds.ts'
import { configError, loadSettings, readSecretFile, type Setting, type SettingsSources } from '../shared/settings.ts'
import { parseBytes, parseCpuMillis } from '../shared/units.ts'

function amountSetting(doc: string, kind: string, parse: (raw: string | number) => number | null): Setting<number> {
  return {
    kind,
    doc,
    defaultText: 'measured',
    parse(raw) {
      const value = typeof raw === 'string' || typeof raw === 'number' ? parse(raw) : null
      if (value !== null && value > 0) return { ok: true, value }
      return { ok: false, faults: [{ path: [], message: `${JSON.stringify(raw)} is no ${kind}.` }] }
    },
  }
}

const HOST = /^[a-zA-Z0-9:]([a-zA-Z0-9.:_-]*[a-zA-Z0-9])?$/

/** Every setting of an agent. */
export const agentSettings = {
  urls: listSetting(
    { doc: 'Coordinators to join and to dial, best first. Needed until the node has joined.', default: [] },
    (text) => (isBaseUrl(text) ? null : `${JSON.stringify(text)} is no URL such as https://host:7600.`),
    'list of URLs',
  ),
  token: optional(textSetting({ doc: 'Join token; needed once. Prefer tokenFile.', secret: true })),
  tokenFile: optional(textSetting({ doc: 'File (mode 0600) with the join token.' })),
  stateDir: textSetting({
    doc: 'Directory of the node’s identity and of what it last was told.',
    default: '/var/lib/rubato-agent',
  }),
  address: optional(
    textSetting({ doc: 'Address at which other nodes and users reach this node; none: that of the default route.' }, HOST),
  ),
  bindAddress: optional(textSetting({ doc: 'Address on which the gateway listens; none: the same as address.' }, HOST)),
  hostname: optional(textSetting({ doc: 'Name of this node; none: the host’s.' }, HOST)),
  labels: labelsSetting({ doc: 'Labels of this node, for placement. Those of its pool win.' }),
  engine: oneOfSetting(['docker', 'process', 'auto'], {
    doc: 'What runs containers; auto: docker where an engine answers.',
    default: 'auto',
  }),
  dockerSocket: textSetting({ doc: 'Socket of the Docker engine.', default: '/var/run/docker.sock' }),
  'capacity.cpus': optional(amountSetting('CPUs to offer instead of the host’s.', 'number of CPUs', parseCpuMillis)),
  'capacity.memory': optional(amountSetting('Memory to offer instead of the host’s.', 'size such as 4G', parseBytes)),
  'capacity.disk': optional(amountSetting('Disk to offer instead of the free space.', 'size such as 20G', parseBytes)),
  'capacity.slots': optional(
    numberSetting({ doc: 'Most instances at once.', defaultText: '250' }, { min: 1, max: 10_000, integer: true }),
  ),
  'reserved.cpus': optional(amountSetting('CPUs kept back for the host itself.', 'number of CPUs', parseCpuMillis)),
  'reserved.memory': optional(amountSetting('Memory kept back for the host itself.', 'size such as 256M', parseBytes)),
  gatewayPorts: textSetting(
    { doc: 'Ports from which the gateway takes one per instance port.', default: '20000-29999' },
    /^\d{1,5}-\d{1,5}$/,
  ),
  'consul.address': optional(
    textSetting({ doc: 'host:port of the local Consul agent to register services with.' }, /^[^\s:]+:\d{1,5}$/),
    'off',
  ),
  'consul.tokenFile': optional(textSetting({ doc: 'File (mode 0600) with the Consul ACL token.' })),
  registerForeign: booleanSetting({
    doc: 'Register containers that Rubato did not start. Exactly one agent per engine does.',
    default: true,
  }),
  localApiPort: numberSetting(
    { doc: 'Port of the local API, on loopback and the container bridge.', default: 7700 },
    { min: 0, max: 65_535, integer: true },
  ),
  drainTimeout: durationSetting(
    { doc: 'On a stop of the agent, how long to wait for what is under way to be finished and reported.', default: '2s' },
    0,
  ),
  logLevel: oneOfSetting(['debug', 'info', 'warn', 'error', 'silent'], { doc: 'Least severe messages to log.', default: 'info' }),
} as const

export interface AgentConfig {
  readonly urls: readonly string[]
  /** Join token: given, or read from its file; null when neither is (the node must have joined already). */
  readonly token: string | null
  /** Where the token came from, so that it can be removed once used; null when it did not come from a file. */
  readonly tokenFile: string | null
  readonly stateDir: string
  /** null: find the address of the default route. */
  readonly address: string | null
  /** null: as `address`. */
  readonly bindAddress: string | null
  readonly hostname: string | null
  readonly labels: Readonly<Record<string, string>>
  readonly engine: 'docker' | 'process' | 'auto'
  readonly dockerSocket: string
  /** What to offer instead of what is measured; a missing part is measured. */
  readonly capacity: Partial<Capacity>
  readonly reserved: { readonly cpuMillis: number; readonly memoryBytes: number }
  /** Both ends included. */
  readonly gatewayPortRange: { readonly from: number; readonly to: number }
  readonly consul: { readonly address: HostPort; readonly token: string | null } | null
  readonly registerForeign: boolean
  readonly localApiPort: number
  readonly drainTimeoutMs: number
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error' | 'silent'
  printable(): Readonly<Record<string, unknown>>
}

export const AGENT_ENV_PREFIX = 'RUBATO_AGENT_'

/**
 * Reads and checks everything; frozen. Throws ConfigError with every fault (the process exits 78). A token file that is gone is
 * no fault: it is removed after the join, and the next start needs none.
 */
export async function loadAgentConfig(sources: SettingsSources): Promise<AgentConfig> {
  const loaded = await loadSettings(agentSettings, AGENT_ENV_PREFIX, sources)
  const { values, locate } = loaded
  const faults: Fault[] = []
  let token = values.token
  if (token !== null && values.tokenFile !== null)
    faults.push({ ...locate('token'), message: 'Both token and tokenFile are given.', hint: 'Give one of them.' })
  else if (values.tokenFile !== null && (await sources.fileMode(values.tokenFile)) !== null)
    token = await readSecretFile(values.tokenFile, locate('tokenFile'), sources, faults)
  const [from = 0, to = 0] = values.gatewayPorts.split('-').map(Number)
  if (from < 1 || to > 65_535 || from > to)
    faults.push({ ...locate('gatewayPorts'), message: `${values.gatewayPorts} is no range of ports within 1-65535.` })
  let consulToken: string | null = null
  if (values['consul.tokenFile'] !== null)
    consulToken = await readSecretFile(values['consul.tokenFile'], locate('consul.tokenFile'), sources, faults)
  if (faults.length > 0) throw configError(faults)
  const [consulHost = '', consulPort = ''] = values['consul.address']?.split(':') ?? []
  return Object.freeze({
    urls: values.urls,
    token,
    tokenFile: values.tokenFile,
    stateDir: values.stateDir,
    address: values.address,
    bindAddress: values.bindAddress,
    hostname: values.hostname,
    labels: values.labels,
    engine: values.engine,
    dockerSocket: values.dockerSocket,
    capacity: Object.freeze({
      ...(values['capacity.cpus'] === null ? {} : { cpuMillis: values['capacity.cpus'] }),
      ...(values['capacity.memory'] === null ? {} : { memoryBytes: values['capacity.memory'] }),
      ...(values['capacity.disk'] === null ? {} : { diskBytes: values['capacity.disk'] }),
      ...(values['capacity.slots'] === null ? {} : { slots: values['capacity.slots'] }),
    }),
    reserved: Object.freeze({ cpuMillis: values['reserved.cpus'] ?? 0, memoryBytes: values['reserved.memory'] ?? 0 }),
    gatewayPortRange: Object.freeze({ from, to }),
    consul:
      values['consul.address'] === null
        ? null
        : Object.freeze({ address: { host: consulHost, port: Number(consulPort) }, token: consulToken }),
    registerForeign: values.registerForeign,
    localApiPort: values.localApiPort,
    drainTimeoutMs: values.drainTimeout,
    logLevel: values.logLevel,
    printable: loaded.printable,
  })
}
