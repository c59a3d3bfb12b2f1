/** One service of an app file, by itself: its container, ports, dependencies and rules. What services mean to each other is in link-services.ts. */
import { isIP } from 'node:net'
import type { ContainerSpec, RestartPolicy } from '../../shared/model/unit.ts'
import { DEPENDENCY_KEYS, SERVICE_KEYS, SERVICE_NETWORK_KEYS, ULIMIT_KEYS } from './compose-schema.ts'
import type { Context } from './context.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { type ReadDeploy, readDeploy, RESTART_DEFAULTS } from './read-deploy.ts'
import { type ReadLabel, readEnvironment, readLabels } from './read-environment.ts'
import { readFiles } from './read-files.ts'
import { readHealth } from './read-health.ts'
import { type ReadPort, readPorts } from './read-ports.ts'
import { readMounts } from './read-volumes.ts'
import { probeOf, readXRubato, type XRubatoReading } from './read-x-rubato.ts'
import { type Report, shorten } from './report.ts'
import { splitWords } from './shell-words.ts'
import { nearest } from '../../shared/nearest.ts'
import { bytes, durationMs, fields, flag, integer, oneOf, record, text, texts, word } from './values.ts'

export interface ReadDependency {
  readonly service: string
  readonly condition: 'started' | 'healthy' | 'completed'
  readonly required: boolean
  readonly cursor: Cursor
}

export interface ReadService {
  readonly name: string
  readonly cursor: Cursor
  readonly runtime: 'docker' | 'process'
  readonly container: ContainerSpec
  /** null where the file says nothing about restarts. */
  readonly restart: RestartPolicy | null
  readonly ports: readonly ReadPort[]
  readonly deploy: ReadDeploy
  readonly x: XRubatoReading
  readonly labels: ReadonlyMap<string, ReadLabel>
  readonly dependsOn: readonly ReadDependency[]
  /** The service whose network it shares, when it is a sidecar. */
  readonly sidecarOf: { readonly service: string; readonly cursor: Cursor } | null
  readonly stopGraceMs: number | null
  readonly platform: string | null
}

/** Capabilities with which a container can take over its host. */
export const ROOT_CAPABILITIES = new Set([
  'ALL',
  'SYS_ADMIN',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_BOOT',
  'DAC_READ_SEARCH',
  'BPF',
  'SYS_TIME',
  'MAC_ADMIN',
  'MAC_OVERRIDE',
])
const IMAGE =
  /^(?:[a-zA-Z0-9.-]+(?::\d+)?\/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:\/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[\w][\w.-]{0,127})?(?:@sha256:[a-f0-9]{64})?$/

/** Reads everything of one service; what cannot be used is in the report, and something harmless stands in for it. */
export async function readService(context: Context, name: string, cursor: Cursor): Promise<ReadService> {
  const { report } = context
  const service = fields(report, cursor, SERVICE_KEYS, `service "${shorten(name)}"`)
  const get = (key: string): Cursor | undefined => service?.get(key)
  const x = readXRubato(report, cursor)
  const runtime = x.value.runtime ?? context.runtime
  refusals(context, cursor, get)
  const ports = readPorts(report, cursor)
  const firstPort = ports[0]?.containerPort ?? null
  const deploy = readDeploy(report, cursor)
  const labels = await readLabels(context, cursor)
  const health = readHealth(report, cursor, probeOf(report, x, firstPort))
  const entrypoint = commandLine(report, get('entrypoint'), 'entrypoint')
  const command = commandLine(report, get('command'), 'command')
  const platform = word(report, get('platform'), 'platform', 64)
  const image = readImage(context, cursor, get, runtime)
  if (runtime === 'process' && (command ?? entrypoint ?? []).length === 0)
    report.fault(
      cursor,
      `service "${shorten(name)}" runs as a process and needs "command"`,
      'a process has no image that would say what to run',
    )
  const user = word(report, get('user'), 'user', 128)
  const workingDir = word(report, get('working_dir'), 'working_dir', 4096)
  const hostname = word(report, get('hostname'), 'hostname', 253)
  const stopSignal = word(report, get('stop_signal'), 'stop_signal', 32)
  const shmSizeBytes = bytes(report, get('shm_size'), 'shm_size')
  networks(context, get('networks'), name)
  const container: ContainerSpec = {
    name,
    image,
    pullPolicy: pullPolicy(report, get('pull_policy')),
    ...(platform === undefined ? {} : { platform }),
    ...(entrypoint === undefined ? {} : { entrypoint }),
    ...(command === undefined ? {} : { command }),
    environment: await readEnvironment(context, cursor),
    labels: Object.fromEntries([...labels].map(([key, label]) => [key, label.value])),
    ...(user === undefined ? {} : { user }),
    ...(workingDir === undefined ? {} : { workingDir }),
    ...(hostname === undefined ? {} : { hostname }),
    mounts: readMounts(context, cursor),
    files: await readFiles(context, cursor),
    limits: deploy.limits,
    reservations: deploy.reservations,
    capAdd: capabilities(context, get('cap_add'), true),
    capDrop: capabilities(context, get('cap_drop'), false),
    readOnlyRootfs: flag(report, get('read_only'), 'read_only') ?? false,
    init: flag(report, get('init'), 'init') ?? false,
    ...(stopSignal === undefined ? {} : { stopSignal }),
    extraHosts: extraHosts(report, get('extra_hosts')),
    dns: texts(report, get('dns'), '"dns"').map((item) => item.value),
    sysctls: record(report, get('sysctls'), '"sysctls"'),
    ulimits: ulimits(report, get('ulimits')),
    ...(shmSizeBytes === undefined ? {} : { shmSizeBytes }),
    tty: flag(report, get('tty'), 'tty') ?? false,
    stdinOpen: flag(report, get('stdin_open'), 'stdin_open') ?? false,
    ...(health === undefined ? {} : { health }),
    restart: deploy.restart ?? { condition: 'any', ...RESTART_DEFAULTS, maxAttempts: null },
    ...(flag(report, get('privileged'), 'privileged') === true && context.policy.allowPrivileged ? { privileged: true } : {}),
    ...(text(report, get('network_mode'), 'network_mode') === 'host' && context.policy.allowHostNetwork
      ? { hostNetwork: true }
      : {}),
  }
  return {
    name,
    cursor,
    runtime,
    container,
    restart: deploy.restart,
    ports,
    deploy,
    x,
    labels,
    dependsOn: dependencies(report, get('depends_on')).concat(links(report, get('links'))),
    sidecarOf: networkMode(context, get),
    stopGraceMs: durationMs(report, get('stop_grace_period'), 'stop_grace_period') ?? null,
    platform: platform ?? null,
  }
}

/** Profiles of a service; it takes part when one of them is asked for, or when it has none. */
export function profilesOf(report: Report, service: Cursor): string[] {
  return texts(report, child(service, 'profiles'), '"profiles"', false).map((item) => item.value)
}

function readImage(
  context: Context,
  cursor: Cursor,
  get: (key: string) => Cursor | undefined,
  runtime: 'docker' | 'process',
): string {
  const { report } = context
  const at = get('image')
  const build = get('build')
  const image = word(report, at, 'image', 512)
  if (at === undefined) {
    if (runtime === 'process') return ''
    if (build !== undefined)
      report.fault(
        build,
        '"build" without "image" is not supported: Rubato builds no images',
        'build and push it, and name it with "image"',
      )
    else
      report.fault(
        cursor,
        'the service has neither "image" nor "build"',
        'name an image; a file made to be laid over another needs that one too (-f base.yml -f this.yml)',
      )
    return ''
  }
  if (build !== undefined) report.warn(build, '"build" is ignored: the image is pulled as it is named')
  if (image === undefined) return ''
  if (!IMAGE.test(image)) {
    report.fault(
      at,
      `"${shorten(image)}" is no name of an image`,
      image === image.toLowerCase() ? 'name[:tag] or name@sha256:digest' : 'names of images are lower-case',
    )
    return ''
  }
  const last = image.slice(image.lastIndexOf('/') + 1)
  if (!image.includes('@')) {
    if (!last.includes(':'))
      report.warn(at, `the image ${shorten(image)} names no version, so "latest" is run: nodes may come to run different ones`)
    else if (last.endsWith(':latest'))
      report.warn(at, `the image ${shorten(image)} may change under its tag: nodes may come to run different ones`)
  }
  return image
}

/** Keys whose support depends on their value. */
function refusals(context: Context, cursor: Cursor, get: (key: string) => Cursor | undefined): void {
  const { report, policy } = context
  const privileged = get('privileged')
  if (flag(report, privileged, 'privileged') === true && !policy.allowPrivileged && privileged !== undefined)
    report.fault(
      privileged,
      'privileged containers are forbidden: they are root on the node',
      'name what it needs in "cap_add", or let an administrator allow it with the policy "allowPrivileged"',
    )
  const only = (key: string, allowed: readonly string[], why: string): void => {
    const at = get(key)
    const value = text(report, at, key)
    if (at !== undefined && value !== undefined && !allowed.includes(value))
      report.fault(at, `${key}: ${shorten(value)} is not supported: ${why}`)
  }
  only('ipc', ['private', 'shareable', 'none', ''], 'instances do not share memory with others or the host')
  only('uts', ['', 'private'], 'an instance has a host name of its own')
  only('cgroup', ['private'], 'it would show the host')
  only('isolation', ['default'], 'it is for Windows containers')
  only('runtime', ['runc'], 'another runtime of the engine cannot be chosen yet')
  for (const item of texts(report, get('security_opt'), '"security_opt"')) {
    if (/^no-new-privileges([:=]false)?$/.test(item.value) && /false$/.test(item.value)) continue
    if (/^no-new-privileges([:=]true)?$/.test(item.value))
      report.warn(item.cursor, 'no-new-privileges is not passed on yet: set-uid programs in the image keep working')
    else if (/^label[:=]/.test(item.value))
      report.warn(item.cursor, `security_opt ${shorten(item.value)} is ignored: labels are the node's to set`)
    else if (/unconfined$|^systempaths/.test(item.value))
      report.fault(
        item.cursor,
        `security_opt ${shorten(item.value)} is forbidden: it switches a protection of the node off`,
        'leave it away and see whether the image needs it',
      )
    else
      report.fault(
        item.cursor,
        `security_opt ${shorten(item.value)} is not supported: nodes have no such profile`,
        'leave it away: the default profile applies',
      )
  }
  if (cursor.node.kind !== 'map') return
}

function pullPolicy(report: Report, cursor: Cursor | undefined): ContainerSpec['pullPolicy'] {
  const value = text(report, cursor, 'pull_policy')
  if (value === undefined || cursor === undefined || value === 'missing' || value === 'if_not_present') return 'missing'
  if (value === 'always' || value === 'never') return value
  if (/^(refresh|daily|weekly|every_(\d+[wdhms])+)$/.test(value)) {
    report.warn(cursor, `pull_policy ${value} pulls at every start of an instance, never while it runs`)
    return 'always'
  }
  if (value === 'build')
    report.warn(cursor, 'pull_policy build is ignored: Rubato builds no images; the image is pulled when missing')
  else report.fault(cursor, `pull_policy "${shorten(value)}" is not known`, 'always, missing, never')
  return 'missing'
}

function commandLine(report: Report, cursor: Cursor | undefined, what: string): string[] | undefined {
  if (cursor === undefined || isNull(cursor.node)) return undefined
  if (cursor.node.kind === 'list') return texts(report, cursor, what).map((item) => item.value)
  const line = text(report, cursor, what)
  if (line === undefined) return undefined
  const words = splitWords(line)
  if (words === null) report.fault(cursor, `a quote in ${what} is never closed`)
  return words ?? undefined
}

function capabilities(context: Context, cursor: Cursor | undefined, isAdded: boolean): string[] {
  return texts(context.report, cursor, isAdded ? '"cap_add"' : '"cap_drop"', false).flatMap((item) => {
    const name = item.value.toUpperCase().replace(/^CAP_/, '')
    if (!/^[A-Z_]{2,40}$/.test(name)) {
      context.report.fault(item.cursor, `"${shorten(item.value)}" is no capability`)
      return []
    }
    if (isAdded && ROOT_CAPABILITIES.has(name) && !context.policy.allowPrivileged) {
      context.report.fault(
        item.cursor,
        `the capability ${name} is forbidden: with it a container can take over the node`,
        'an administrator can allow it with the policy "allowPrivileged"',
      )
      return []
    }
    return [name]
  })
}

function extraHosts(report: Report, cursor: Cursor | undefined): string[] {
  const given =
    cursor?.node.kind === 'map'
      ? children(cursor).flatMap(({ key, cursor: value }) =>
          texts(report, value, `addresses of ${shorten(key)}`).map((item) => ({
            host: key,
            address: item.value,
            at: item.cursor,
          })),
        )
      : texts(report, cursor, '"extra_hosts"', false).map((item) => {
          const match = /^([^\s:=]+)\s*[:=]\s*(\S+)$/.exec(item.value)
          return { host: match?.[1] ?? '', address: match?.[2] ?? '', at: item.cursor }
        })
  return given.flatMap(({ host, address, at }) => {
    const plain = stripBrackets(address)
    if (host !== '' && (plain === 'host-gateway' || isIP(plain) !== 0)) return [`${host}:${plain}`]
    report.fault(at, `"${shorten(`${host}:${address}`)}" is not host:address`, 'the address is an IP address or "host-gateway"')
    return []
  })
}

function stripBrackets(address: string): string {
  return address.replace(/^\[(.*)\]$/, '$1')
}

function ulimits(report: Report, cursor: Cursor | undefined): Record<string, { soft: number; hard: number }> {
  const range = { min: -1, max: Number.MAX_SAFE_INTEGER }
  if (cursor === undefined || isNull(cursor.node)) return {}
  if (cursor.node.kind !== 'map') {
    report.fault(cursor, '"ulimits" must be a map')
    return {}
  }
  const result: [string, { soft: number; hard: number }][] = []
  for (const { key, cursor: value } of children(cursor)) {
    if (key.startsWith('x-')) continue
    const long = value.node.kind === 'map' ? fields(report, value, ULIMIT_KEYS, `ulimit ${shorten(key)}`) : undefined
    const soft = integer(report, long === undefined ? value : long.get('soft'), `ulimit ${shorten(key)}`, range)
    const hard = integer(report, long === undefined ? value : long.get('hard'), `ulimit ${shorten(key)}`, range)
    if (long !== undefined && (long.get('soft') === undefined || long.get('hard') === undefined))
      report.fault(value, `ulimit ${shorten(key)} needs both "soft" and "hard"`)
    if (soft !== undefined && hard !== undefined) result.push([key, { soft, hard }])
  }
  return Object.fromEntries(result)
}

const CONDITIONS = {
  service_started: 'started',
  service_healthy: 'healthy',
  service_completed_successfully: 'completed',
} as const

function dependencies(report: Report, cursor: Cursor | undefined): ReadDependency[] {
  if (cursor?.node.kind !== 'map')
    return texts(report, cursor, '"depends_on"', false).map((item) => ({
      service: item.value,
      condition: 'started',
      required: true,
      cursor: item.cursor,
    }))
  return children(cursor).flatMap(({ key, keyAt, cursor: value }): ReadDependency[] => {
    if (key.startsWith('x-')) return []
    const dependency = fields(report, value, DEPENDENCY_KEYS, `the dependency on ${shorten(key)}`)
    const condition =
      oneOf(report, dependency?.get('condition'), 'condition', Object.keys(CONDITIONS) as (keyof typeof CONDITIONS)[]) ??
      'service_started'
    const required = flag(report, dependency?.get('required'), 'required') ?? true
    return [{ service: key, condition: CONDITIONS[condition], required, cursor: { ...value, at: keyAt } }]
  })
}

function links(report: Report, cursor: Cursor | undefined): ReadDependency[] {
  return texts(report, cursor, '"links"', false).map((item) => {
    const [service = '', alias] = item.value.split(':', 2)
    if (alias !== undefined && alias !== service)
      report.warn(
        item.cursor,
        `the alias "${shorten(alias)}" is ignored: only the name of the service itself ("${shorten(service)}") resolves`,
      )
    return { service, condition: 'started', required: true, cursor: item.cursor }
  })
}

function networkMode(context: Context, get: (key: string) => Cursor | undefined): ReadService['sidecarOf'] {
  const { report, policy } = context
  const cursor = get('network_mode')
  const mode = text(report, cursor, 'network_mode')
  if (cursor === undefined || mode === undefined || mode === 'bridge' || mode === 'default' || mode === '') return null
  if (get('networks') !== undefined && mode !== 'host') report.fault(cursor, 'network_mode and networks exclude each other')
  if (mode.startsWith('service:')) return { service: mode.slice(8), cursor }
  if (mode === 'host') {
    if (!policy.allowHostNetwork)
      report.fault(
        cursor,
        "the host's network is forbidden: authorization at the gateway could be walked around",
        'leave it away and publish "ports", or let an administrator allow it with the policy "allowHostNetwork"',
      )
  } else if (mode === 'none')
    report.fault(
      cursor,
      'network_mode none is not supported: every instance has an address',
      'leave it away; without "ports" and "expose" nothing leads to it',
    )
  else if (mode.startsWith('container:'))
    report.fault(cursor, 'containers outside of the app cannot be joined', 'use "service:<name>" for a service of this file')
  else report.fault(cursor, `network_mode "${shorten(mode)}" is not supported`, 'service:<name> and bridge are')
  return null
}

function networks(context: Context, cursor: Cursor | undefined, service: string): void {
  const { report } = context
  if (cursor === undefined || isNull(cursor.node)) return
  const named: { name: string; cursor: Cursor }[] = []
  if (cursor.node.kind === 'map')
    for (const { key, keyAt, cursor: value } of children(cursor)) {
      if (key.startsWith('x-')) continue
      named.push({ name: key, cursor: { ...value, at: keyAt } })
      const options = child(value, 'aliases')
      // An alias that is the service's own name resolves.
      if (
        value.node.kind === 'map' &&
        !(
          value.node.entries.length === 1 &&
          options !== undefined &&
          texts(report, options, 'aliases').every((item) => item.value === service)
        )
      )
        fields(report, value, SERVICE_NETWORK_KEYS, `network "${shorten(key)}"`)
      else if (value.node.kind !== 'map' && !isNull(value.node))
        report.fault(value, `network "${shorten(key)}" must be a map of keys`)
    }
  else for (const item of texts(report, cursor, '"networks"', false)) named.push({ name: item.value, cursor: item.cursor })
  for (const item of named)
    if (item.name !== 'default' && !context.networks.has(item.name)) {
      const near = nearest(item.name, context.networks.keys())
      report.fault(
        item.cursor,
        `the network "${shorten(item.name)}" is not declared`,
        near === null ? `add "${item.name}:" under the top-level "networks:"` : `did you mean "${near}"?`,
      )
    }
}
