/**
 * From our words to the engine's: what a container is created with, and what an inspected one is to us. Pure.
 *
 * Nothing is published: the node's gateway is the only way in. Our labels are laid over the user's, so that none can be forged.
 */
import { posix } from 'node:path'
import { InputError } from '../../../shared/errors.ts'
import { containerName } from '../../../shared/model/identity.ts'
import type { Mount } from '../../../shared/model/unit.ts'
import type { CreateContainer, ForeignContainer, ObservedContainer } from '../runtime.ts'
import type { EngineCreateOptions, EngineInspectInfo } from './docker-types.ts'

export const LABEL = {
  cluster: 'rubato.cluster',
  node: 'rubato.node',
  instance: 'rubato.instance',
  specHash: 'rubato.spec-hash',
  container: 'rubato.container',
} as const

/** A container that still waits for its files has this before its name; it is none of the observed ones. */
export const UNFINISHED_PREFIX = 'rubato-unfinished.'

export interface MappingContext {
  readonly clusterId: string
  readonly nodeId: string
  readonly networkName: string
  /** Resolvers for containers that name none; empty: the engine's own. */
  readonly dns: readonly string[]
}

/** The name that the request's container has in the end. */
export function finalNameOf(request: CreateContainer): string {
  return containerName(request.instance, request.sharesNetworkOf === null ? undefined : request.spec.name)
}

/** Labels by which containers of this node are found again. */
function ownLabels(context: Pick<MappingContext, 'clusterId' | 'nodeId'>, request: CreateContainer): Record<string, string> {
  return {
    [LABEL.cluster]: context.clusterId,
    [LABEL.node]: context.nodeId,
    [LABEL.instance]: request.instance,
    [LABEL.specHash]: request.specHash,
    [LABEL.container]: request.spec.name,
  }
}

/** Throws InputError for what the engine cannot be asked for. */
export function createOptionsOf(request: CreateContainer, context: MappingContext): EngineCreateOptions {
  const { spec, sharesNetworkOf } = request
  if (spec.hostNetwork)
    throw new InputError("a container in the node's own network would answer beside the gateway, without authorization", [
      { path: '/network_mode', message: 'host is not offered', hint: 'Publish its ports instead.' },
    ])
  const sidecar = sharesNetworkOf !== null
  const dns = spec.dns.length > 0 ? spec.dns : context.dns
  const extraHosts = [...spec.extraHosts, ...request.extraHosts]
  const { cpuMillis, memoryBytes, pids } = spec.limits
  const reserved = spec.reservations
  return {
    name: spec.files.length > 0 ? UNFINISHED_PREFIX + finalNameOf(request) : finalNameOf(request),
    Image: spec.image,
    ...(spec.platform ? { platform: spec.platform } : {}),
    ...(spec.entrypoint ? { Entrypoint: [...spec.entrypoint] } : {}),
    ...(spec.command ? { Cmd: [...spec.command] } : {}),
    Env: Object.entries({ ...spec.environment, ...request.extraEnvironment }).map(([name, value]) => `${name}=${value}`),
    Labels: { ...spec.labels, ...ownLabels(context, request) },
    ...(spec.user ? { User: spec.user } : {}),
    ...(spec.workingDir ? { WorkingDir: spec.workingDir } : {}),
    // A sidecar has its main container's host name, hosts and resolvers; the engine refuses others.
    ...(spec.hostname && !sidecar ? { Hostname: spec.hostname } : {}),
    ...(sidecar ? {} : { ExposedPorts: exposedPortsOf(request) }),
    Tty: spec.tty,
    OpenStdin: spec.stdinOpen,
    ...(spec.stopSignal ? { StopSignal: spec.stopSignal } : {}),
    // Compose's healthcheck is ours to run; the image's own would run beside it.
    ...(spec.health ? { Healthcheck: { Test: ['NONE'] } } : {}),
    HostConfig: {
      NetworkMode: sidecar ? `container:${sharesNetworkOf}` : context.networkName,
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
      Mounts: [...spec.mounts.map((mount) => mountOf(mount, context)), ...volumesForFiles(request)],
      ...(cpuMillis ? { NanoCpus: cpuMillis * 1_000_000 } : {}),
      ...(memoryBytes ? { Memory: memoryBytes } : {}),
      ...(pids ? { PidsLimit: pids } : {}),
      ...(reserved.cpuMillis ? { CpuShares: Math.max(2, Math.round((reserved.cpuMillis * 1024) / 1000)) } : {}),
      // The engine refuses a reservation above the limit.
      ...(reserved.memoryBytes ? { MemoryReservation: Math.min(reserved.memoryBytes, memoryBytes ?? reserved.memoryBytes) } : {}),
      ...(spec.privileged ? { Privileged: true } : {}),
      CapAdd: [...spec.capAdd],
      CapDrop: droppedOf(spec),
      ReadonlyRootfs: spec.readOnlyRootfs,
      Init: spec.init,
      ...(extraHosts.length > 0 && !sidecar ? { ExtraHosts: extraHosts } : {}),
      ...(dns.length > 0 && !sidecar ? { Dns: [...dns] } : {}),
      Sysctls: sidecar ? {} : { ...spec.sysctls },
      Ulimits: Object.entries(spec.ulimits).map(([Name, { soft, hard }]) => ({ Name, Soft: soft, Hard: hard })),
      ...(spec.shmSizeBytes ? { ShmSize: spec.shmSizeBytes } : {}),
    },
  }
}

/**
 * The gateway knows callers by their source address. With raw sockets (which engines give by default) a container could send, and
 * answer address requests, in the name of its neighbour on the bridge.
 */
function droppedOf({ capAdd, capDrop }: CreateContainer['spec']): string[] {
  const names = (list: readonly string[]) => list.map((name) => name.toUpperCase().replace(/^CAP_/, ''))
  const asked = names(capAdd).some((name) => name === 'NET_RAW' || name === 'ALL')
  const dropped = names(capDrop).some((name) => name === 'NET_RAW' || name === 'ALL')
  return asked || dropped ? [...capDrop] : [...capDrop, 'NET_RAW']
}

function exposedPortsOf({ ports }: CreateContainer): Record<string, object> {
  return Object.fromEntries(
    ports.map(({ containerPort, protocol }) => [`${containerPort}/${protocol === 'udp' ? 'udp' : 'tcp'}`, {}]),
  )
}

type EngineMount = NonNullable<NonNullable<EngineCreateOptions['HostConfig']>['Mounts']>[number]

function mountOf(mount: Mount, { clusterId }: MappingContext): EngineMount {
  if (mount.kind === 'tmpfs')
    return {
      Type: 'tmpfs',
      Source: '',
      Target: mount.target,
      ReadOnly: mount.readOnly,
      ...(mount.sizeBytes ? { TmpfsOptions: { SizeBytes: mount.sizeBytes, Mode: 0o1777 } } : {}),
    }
  return {
    Type: mount.kind,
    Source: mount.source,
    Target: mount.target,
    ReadOnly: mount.readOnly,
    ...(mount.kind === 'volume'
      ? { VolumeOptions: { NoCopy: false, Labels: { [LABEL.cluster]: clusterId }, DriverConfig: { Name: 'local', Options: {} } } }
      : {}),
  }
}

/** Files cannot be put into a read-only root: their directories become volumes of the container's own. */
function volumesForFiles({ spec }: CreateContainer): EngineMount[] {
  if (!spec.readOnlyRootfs) return []
  const directories = new Set<string>()
  for (const { target } of spec.files) {
    const directory = posix.dirname(posix.resolve('/', target))
    if (directory === '/')
      throw new InputError(`a file cannot be put at ${target} when the root is read-only`, [
        { path: '/read_only', message: `no file can be put directly into /`, hint: 'Give its target a directory.' },
      ])
    if (!spec.mounts.some((mount) => posix.resolve('/', mount.target) === directory)) directories.add(directory)
  }
  return [...directories].sort().map((Target) => ({ Type: 'volume', Source: '', Target, ReadOnly: false }))
}

/** What a container of ours is to the reconciler; null when its labels are not ours or it is not finished. */
export function observedOf(
  info: EngineInspectInfo,
  context: Pick<MappingContext, 'clusterId' | 'nodeId' | 'networkName'>,
): ObservedContainer | null {
  const labels = info.Config.Labels ?? {}
  const instance = labels[LABEL.instance]
  if (labels[LABEL.cluster] !== context.clusterId || labels[LABEL.node] !== context.nodeId || !instance) return null
  if (nameOf(info).startsWith(UNFINISHED_PREFIX)) return null
  const running = info.State.Running && !info.State.Dead
  const ports = Object.keys(info.Config.ExposedPorts ?? {}).map((key) => Number.parseInt(key, 10))
  return {
    id: info.Id,
    instance,
    container: labels[LABEL.container] ?? '',
    specHash: labels[LABEL.specHash] ?? '',
    state: running
      ? 'running'
      : info.State.Dead
        ? 'dead'
        : startOf(info) === null || info.State.Status === 'created'
          ? 'created'
          : 'exited',
    startedAtMs: startOf(info),
    exitedAtMs: running ? null : timeOf(info.State.FinishedAt),
    exitCode: running || startOf(info) === null ? null : info.State.ExitCode,
    oomKilled: info.State.OOMKilled,
    address: running ? info.NetworkSettings.Networks?.[context.networkName]?.IPAddress || null : null,
    portMap: Object.fromEntries(ports.map((port) => [port, port])),
  }
}

/**
 * What a container of someone else is to the registrar. `endAskedMs` (epoch ms, null: never): when its stop was asked for. From then
 * on it counts as not running, although it still answers for a while, unless it was started since.
 */
export function foreignOf(info: EngineInspectInfo, endAskedMs: number | null = null): ForeignContainer {
  const networks = Object.values(info.NetworkSettings.Networks ?? {})
  const bindings = info.NetworkSettings.Ports ?? {}
  const keys = new Set([...Object.keys(info.Config.ExposedPorts ?? {}), ...Object.keys(bindings)])
  const health = (info.State as { Health?: { Status?: string } }).Health?.Status
  return {
    id: info.Id,
    name: nameOf(info),
    image: info.Config.Image,
    labels: info.Config.Labels ?? {},
    environment: info.Config.Env ?? [],
    address: networks.map((network) => network.IPAddress).find((address) => address) ?? null,
    ports: [...keys].sort().flatMap((key) => {
      const [port, protocol] = key.split('/')
      const containerPort = Number(port)
      if (!Number.isInteger(containerPort)) return []
      const udp: 'tcp' | 'udp' = protocol === 'udp' ? 'udp' : 'tcp'
      const published = bindings[key] ?? []
      if (published.length === 0) return [{ containerPort, protocol: udp, hostIp: null, hostPort: null }]
      return published.map(({ HostIp, HostPort }) => ({
        containerPort,
        protocol: udp,
        hostIp: HostIp || null,
        hostPort: Number(HostPort) || null,
      }))
    }),
    running: info.State.Running && !(endAskedMs !== null && (startOf(info) ?? 0) <= endAskedMs),
    healthy: health === undefined || health === 'none' ? null : health === 'healthy',
  }
}

function nameOf(info: EngineInspectInfo): string {
  return info.Name.replace(/^\//, '')
}

function startOf(info: EngineInspectInfo): number | null {
  return timeOf(info.State.StartedAt)
}

/** Epoch ms of an engine's time; null for its zero. */
function timeOf(text: string | undefined): number | null {
  if (!text || text.startsWith('0001-')) return null
  // Nanoseconds are cut: not every parser takes nine digits.
  const ms = epochMsOf(text)
  return Number.isFinite(ms) ? ms : null
}

function epochMsOf(text: string): number {
  const match = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))$/.exec(text)
  if (!match) return Number.NaN
  const [, year, month, day, hour, minute, second, fraction = '', sign, offsetHour = '0', offsetMinute = '0'] = match
  const offsetMs = (Number(offsetHour) * 60 + Number(offsetMinute)) * 60_000 * (sign === '-' ? -1 : 1)
  return (
    daysSinceEpoch(Number(year), Number(month), Number(day)) * 86_400_000 +
    Number(hour) * 3_600_000 +
    Number(minute) * 60_000 +
    Number(second) * 1_000 +
    Math.floor(Number(`0.${fraction || '0'}`) * 1_000) -
    offsetMs
  )
}

/** Days of the Gregorian calendar from 1970-01-01. */
function daysSinceEpoch(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year
  const era = Math.floor(y / 400)
  const yearOfEra = y - era * 400
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719_468
}
