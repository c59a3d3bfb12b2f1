/** One service of an app file, by itself: its container, ports, dependencies and rules. What services mean to each other is in link-services.ts. */
import type { ContainerSpec, RestartPolicy } from '../../shared/model/unit.ts'
import { SERVICE_KEYS, ULIMIT_KEYS } from './compose-schema.ts'
import type { Context } from './context.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { type ReadDependency, readDependsOn, readLinks } from './read-dependencies.ts'
import { type ReadDeploy, readDeploy, RESTART_DEFAULTS } from './read-deploy.ts'
import { type ReadLabel, readEnvironment, readLabels } from './read-environment.ts'
import { readFiles } from './read-files.ts'
import { readHealth } from './read-health.ts'
import { readImage, readPullPolicy } from './read-image.ts'
import { checkNetworks, readExtraHosts, readNetworkMode } from './read-networks.ts'
import { type ReadPort, readPorts } from './read-ports.ts'
import { readCapabilities, refusePrivileges } from './read-privileges.ts'
import { readMounts } from './read-volumes.ts'
import { probeOf, readXRubato, type XRubatoReading } from './read-x-rubato.ts'
import { type Report, shorten } from './report.ts'
import { splitWords } from './shell-words.ts'
import { bytes, durationMs, fields, flag, integer, record, text, texts, word } from './values.ts'

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

/** Reads everything of one service; what cannot be used is in the report, and something harmless stands in for it. */
export async function readService(context: Context, name: string, cursor: Cursor): Promise<ReadService> {
  const { report } = context
  const service = fields(report, cursor, SERVICE_KEYS, `service "${shorten(name)}"`)
  const get = (key: string): Cursor | undefined => service?.get(key)
  const x = readXRubato(report, cursor)
  const runtime = x.value.runtime ?? context.runtime
  refusePrivileges(context, get)
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
  checkNetworks(context, get('networks'), name)
  const container: ContainerSpec = {
    name,
    image,
    pullPolicy: readPullPolicy(report, get('pull_policy')),
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
    capAdd: readCapabilities(context, get('cap_add'), true),
    capDrop: readCapabilities(context, get('cap_drop'), false),
    readOnlyRootfs: flag(report, get('read_only'), 'read_only') ?? false,
    init: flag(report, get('init'), 'init') ?? false,
    ...(stopSignal === undefined ? {} : { stopSignal }),
    extraHosts: readExtraHosts(report, get('extra_hosts')),
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
    dependsOn: [...readDependsOn(report, get('depends_on')), ...readLinks(report, get('links'))],
    sidecarOf: readNetworkMode(context, get),
    stopGraceMs: durationMs(report, get('stop_grace_period'), 'stop_grace_period') ?? null,
    platform: platform ?? null,
  }
}

/** Profiles of a service; it takes part when one of them is asked for, or when it has none. */
export function profilesOf(report: Report, service: Cursor): string[] {
  return texts(report, child(service, 'profiles'), '"profiles"', false).map((item) => item.value)
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
