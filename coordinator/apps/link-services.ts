/** What the services of an app mean to each other: sidecars, dependencies, shared ports; and the specs that come of it. Pure. */
import { canonicalJson, specHashOf } from '../../shared/canonical.ts'
import type { Dependency, PlacementRules, ServiceSpec, UpdateRules } from '../../shared/model/app.ts'
import type { ContainerSpec, PortProtocol, UnitSpec } from '../../shared/model/unit.ts'
import { checkAccess, checkCycles, checkPublished, checkReachable, checkScheduler, checkSingleton } from './check-services.ts'
import type { Context } from './context.ts'
import { jobRules } from './read-job.ts'
import { scaleRules } from './read-scale.ts'
import { UPDATE_DEFAULTS } from './read-deploy.ts'
import { type ReadPort, unitPorts } from './read-ports.ts'
import type { ReadDependency } from './read-dependencies.ts'
import type { ReadService } from './read-service.ts'
import {
  accessPolicy,
  affinityRules,
  DEFAULT_DRAIN_MS,
  DEFAULT_SINGLETON_MS,
  loadSources,
  MIN_SINGLETON_MS,
  ms,
  needsKeys,
  partOf,
} from './read-x-rubato.ts'
import { shorten } from './report.ts'
import { countSchedules, MAX_SCHEDULES, MAX_SPEC_BYTES, tooManySchedules } from './spec-bounds.ts'
import { nearest } from '../../shared/nearest.ts'
import { parseBytes } from '../../shared/units.ts'

const DEFAULT_STOP_GRACE_MS = 10_000

/** Specs of all services that are no sidecars, in file order. `inactive` are services left out for their profile. */
export function linkServices(context: Context, services: readonly ReadService[], inactive: ReadonlySet<string>): ServiceSpec[] {
  const byName = new Map(services.map((service) => [service.name, service]))
  const mains = findMains(context, services, byName, inactive)
  const dependencies = new Map(services.map((service) => [service.name, resolveDependencies(context, service, byName, inactive)]))
  const awaited = new Set(
    [...dependencies.values()]
      .flat()
      .filter((item) => item.condition === 'completed')
      .map((item) => item.service),
  )
  const names = new Set(byName.keys())
  const specs = services
    .filter((service) => service.sidecarOf === null)
    .map((main) => {
      const sidecars = services.filter((other) => other !== main && mains.get(other.name) === main.name)
      const unitNames = new Set([main.name, ...sidecars.map((sidecar) => sidecar.name)])
      const wanted = [main, ...sidecars].flatMap((member) => dependencies.get(member.name) ?? [])
      const dependsOn = mergeDependencies(wanted, mains, unitNames)
      return buildSpec(context, main, sidecars, dependsOn, names, awaited)
    })
  checkCycles(context, services, dependencies, mains)
  checkPublished(context, services)
  checkReachable(context, services, dependencies)
  const size = Buffer.byteLength(canonicalJson(specs))
  if (size > MAX_SPEC_BYTES)
    context.report.fault(
      services[0]?.cursor ?? { path: '', at: { file: '', line: 1, column: 1 } },
      `the app takes ${Math.ceil(size / 1024)} KiB with its configs and secrets; at most ${MAX_SPEC_BYTES / 1024} KiB are possible`,
      'put large files into images or volumes',
    )
  const schedules = countSchedules({ services: specs })
  if (schedules > MAX_SCHEDULES) {
    const { message, hint } = tooManySchedules(schedules)
    context.report.fault(services[0]?.cursor ?? { path: '', at: { file: '', line: 1, column: 1 } }, message, hint)
  }
  return specs
}

/** The main service of every service's unit (itself, for most). */
function findMains(
  context: Context,
  services: readonly ReadService[],
  byName: ReadonlyMap<string, ReadService>,
  inactive: ReadonlySet<string>,
): Map<string, string> {
  const mains = new Map<string, string>()
  for (const service of services) {
    let current = service
    const seen = new Set([service.name])
    while (current.sidecarOf !== null) {
      const { service: next, cursor } = current.sidecarOf
      const target = byName.get(next)
      if (target === undefined) {
        unknownService(context, cursor, next, byName, inactive)
        break
      }
      if (seen.has(next)) {
        context.report.fault(
          cursor,
          `services share each other's network in a circle: ${shorten([...seen, next].join(' → '), 200)}`,
        )
        break
      }
      seen.add(next)
      current = target
    }
    mains.set(service.name, current.name)
  }
  return mains
}

function resolveDependencies(
  context: Context,
  service: ReadService,
  byName: ReadonlyMap<string, ReadService>,
  inactive: ReadonlySet<string>,
): ReadDependency[] {
  const seen = new Set<string>()
  return service.dependsOn.filter((dependency) => {
    if (seen.has(dependency.service)) return false
    seen.add(dependency.service)
    if (dependency.service === service.name) {
      context.report.fault(dependency.cursor, `service "${shorten(service.name)}" depends on itself`)
      return false
    }
    const target = byName.get(dependency.service)
    if (target !== undefined) {
      if (dependency.condition === 'healthy' && target.container.health === undefined)
        context.report.warn(
          dependency.cursor,
          `"${shorten(dependency.service)}" has no healthcheck here: it counts as healthy as soon as it runs`,
        )
      if (dependency.condition === 'completed' && target.restart?.condition === 'any' && !target.deploy.isJob)
        context.report.warn(
          dependency.cursor,
          `"${shorten(dependency.service)}" is restarted whenever it ends, so it may never count as completed; give it restart: "no"`,
        )
      return true
    }
    if (!dependency.required && inactive.has(dependency.service)) return false
    if (!dependency.required)
      context.report.warn(
        dependency.cursor,
        `the service "${shorten(dependency.service)}" is not there; the dependency is not required`,
      )
    else unknownService(context, dependency.cursor, dependency.service, byName, inactive)
    return false
  })
}

function unknownService(
  context: Context,
  cursor: ReadDependency['cursor'],
  name: string,
  byName: ReadonlyMap<string, ReadService>,
  inactive: ReadonlySet<string>,
): void {
  if (inactive.has(name)) {
    context.report.fault(
      cursor,
      `the service "${shorten(name)}" is left out: none of its profiles is asked for`,
      'ask for one of its profiles, or say "required: false"',
    )
    return
  }
  const near = nearest(name, byName.keys())
  context.report.fault(cursor, `there is no service "${shorten(name)}"`, near === null ? undefined : `did you mean "${near}"?`)
}

function mergeDependencies(
  wanted: readonly ReadDependency[],
  mains: ReadonlyMap<string, string>,
  ownUnit: ReadonlySet<string>,
): Dependency[] {
  const strength = { started: 0, healthy: 1, completed: 2 } as const
  const merged = new Map<string, Dependency>()
  for (const dependency of wanted) {
    if (ownUnit.has(dependency.service)) continue
    const service = mains.get(dependency.service) ?? dependency.service
    const before = merged.get(service)
    const condition =
      before !== undefined && strength[before.condition] > strength[dependency.condition]
        ? before.condition
        : dependency.condition
    merged.set(service, { service, condition, required: dependency.required || (before?.required ?? false) })
  }
  return [...merged.values()]
}

function buildSpec(
  context: Context,
  main: ReadService,
  sidecars: readonly ReadService[],
  dependsOn: readonly Dependency[],
  names: ReadonlySet<string>,
  awaited: ReadonlySet<string>,
): ServiceSpec {
  const { report, app } = context
  const { x, deploy } = main
  const ports = main.ports.concat(sidecars.flatMap((sidecar) => sidecarPorts(context, sidecar)))
  const fallback = fallbackProtocol(main)
  checkAccess(context, main, ports, fallback)
  const { ports: unitPortList, published } = unitPorts(ports, fallback)
  const job = jobRules(report, main)
  const scale = job === null ? scaleRules(report, x) : null
  const access = accessPolicy(report, x, app, names, published.length > 0)
  const firstPublished = ports.find((port) => port.published !== null)
  if (x.value.access === undefined && firstPublished !== undefined)
    report.warn(
      firstPublished.cursor,
      `port ${firstPublished.published?.port} is published without x-rubato.access: anybody may call it`,
    )
  if (x.value.expose !== undefined)
    report.warn(partOf(x, 'expose'), 'edge nodes do not route by host and path yet: publish a port for now')
  const containers = [main, ...sidecars].map((member) => containerOf(context, member, member !== main, awaited.has(member.name)))
  if (job !== null && containers[0] !== undefined) containers[0] = onceOnly(containers[0])
  const members = [main, ...sidecars]
  const unit: UnitSpec = {
    runtime: main.runtime,
    containers,
    ports: unitPortList,
    published,
    reservations: {
      cpuMillis: sum(containers.map((container) => container.reservations.cpuMillis ?? 0)),
      memoryBytes: sum(containers.map((container) => container.reservations.memoryBytes ?? 0)),
    },
    stopGraceMs: Math.max(...members.map((member) => member.stopGraceMs ?? DEFAULT_STOP_GRACE_MS)),
    drainMs: ms(x.value.drain) ?? ms(x.value.scale?.coolDown) ?? DEFAULT_DRAIN_MS,
    warmUpMs: scale?.warmUpMs ?? 0,
    load: loadSources(report, x, main.labels, ports[0]?.containerPort ?? null),
    access,
    balance: x.value.balance ?? 'least-load',
    singletonStrictMs:
      x.value.singleton === undefined
        ? null
        : x.value.singleton === 'strict'
          ? DEFAULT_SINGLETON_MS
          : (ms(x.value.singleton.after) ?? DEFAULT_SINGLETON_MS),
  }
  if (unit.singletonStrictMs !== null && unit.singletonStrictMs < MIN_SINGLETON_MS)
    report.fault(
      partOf(x, 'singleton'),
      `a strict singleton must be allowed ${MIN_SINGLETON_MS / 1000}s without a coordinator, or it ends at every hiccup`,
    )
  const replicas = replicasOf(context, main, scale)
  checkScheduler(context, main)
  if (job === null) checkSingleton(context, main, scale, replicas)
  return {
    name: main.name,
    unit,
    specHash: specHashOf(unit),
    mode: deploy.mode,
    replicas,
    scale,
    ...(job === null ? {} : { job }),
    placement: placementOf(context, main, names),
    update: updateOf(main, unit, replicas, scale?.max ?? replicas),
    dependsOn,
    published,
    labels: deploy.labels,
  }
}

/** TCP ports that say nothing themselves speak http where something needs it. */
function fallbackProtocol(service: ReadService): PortProtocol {
  const load = service.x.value.scale?.load
  const countsRequests = load === 'requests' || (Array.isArray(load) && load.includes('requests'))
  return service.x.value.protocol ?? (needsKeys(service.x.value) || countsRequests ? 'http' : 'tcp')
}

function sidecarPorts(context: Context, sidecar: ReadService): readonly ReadPort[] {
  for (const port of sidecar.ports)
    if (port.published !== null)
      context.report.fault(
        port.cursor,
        `"${shorten(sidecar.name)}" shares the network of "${shorten(sidecar.sidecarOf?.service ?? '')}", so it cannot publish ports`,
        `move it to the "ports" of "${shorten(sidecar.sidecarOf?.service ?? '')}"`,
      )
  const { deploy, x } = sidecar
  if (deploy.replicas !== null && deploy.replicas.count !== 1)
    context.report.fault(
      deploy.replicas.cursor,
      `"${shorten(sidecar.name)}" is a sidecar: it runs once with every instance of "${shorten(sidecar.sidecarOf?.service ?? '')}"`,
      'set the number there',
    )
  for (const key of Object.keys(x.value))
    if (key !== 'health' && key !== 'runtime')
      context.report.fault(
        partOf(x, key),
        `x-rubato.${key} of a sidecar means nothing`,
        `set it at "${shorten(sidecar.sidecarOf?.service ?? '')}"`,
      )
  if (deploy.constraints.length + deploy.spreadOver.length > 0 || deploy.maxPerNode !== null)
    context.report.warn(
      sidecar.cursor,
      `placement of the sidecar "${shorten(sidecar.name)}" is ignored: it goes where "${shorten(sidecar.sidecarOf?.service ?? '')}" goes`,
    )
  return sidecar.ports.filter((port) => port.published === null)
}

/** The coordinator counts the attempts of a job, and may make the next one elsewhere. */
function onceOnly(container: ContainerSpec): ContainerSpec {
  return { ...container, restart: { ...container.restart, condition: 'none', maxAttempts: null } }
}

function containerOf(context: Context, service: ReadService, isSidecar: boolean, isAwaited: boolean): ContainerSpec {
  let container = service.container
  // What others wait for to complete must be allowed to end.
  if (isAwaited && service.restart === null)
    container = { ...container, restart: { ...container.restart, condition: 'on-failure' } }
  if (isSidecar && (container.hostname !== undefined || container.dns.length > 0 || container.extraHosts.length > 0)) {
    context.report.warn(
      service.cursor,
      `hostname, dns and extra_hosts of the sidecar "${shorten(service.name)}" are ignored: it shares those of its main container`,
    )
    const { hostname: _shared, ...rest } = container
    container = { ...rest, dns: [], extraHosts: [] }
  }
  if (service.runtime === 'process') checkProcess(context, service, container)
  return container
}

function checkProcess(context: Context, service: ReadService, container: ContainerSpec): void {
  const meaningless = [
    container.image === '' ? null : 'image',
    container.mounts.length === 0 ? null : 'volumes',
    container.capAdd.length + container.capDrop.length === 0 ? null : 'cap_add/cap_drop',
    container.readOnlyRootfs ? 'read_only' : null,
    container.entrypoint === undefined ? null : 'entrypoint',
    container.hostname === undefined ? null : 'hostname',
    container.extraHosts.length === 0 ? null : 'extra_hosts',
  ].filter((name) => name !== null)
  if (meaningless.length > 0)
    context.report.warn(
      service.cursor,
      `"${shorten(service.name)}" runs as a plain process: ${meaningless.join(', ')} mean nothing there`,
    )
}

function replicasOf(context: Context, service: ReadService, scale: ServiceSpec['scale']): number {
  const { report } = context
  const { deploy, x } = service
  if (deploy.mode === 'global') {
    if (scale !== null)
      report.fault(
        partOf(x, 'scale'),
        'a global service runs once per node, so it cannot scale',
        'remove scale, or "mode: global"',
      )
    if (deploy.replicas !== null)
      report.fault(
        deploy.replicas.cursor,
        'a global service runs once per node, so "replicas" means nothing',
        'remove one of the two',
      )
    return 1
  }
  const count = deploy.replicas?.count ?? scale?.min ?? 1
  if (scale !== null && deploy.replicas !== null && (count < scale.min || count > scale.max))
    report.fault(
      deploy.replicas.cursor,
      `replicas (${count}) is not between min (${scale.min}) and max (${scale.max}) of x-rubato.scale`,
      'replicas is the number to begin with; leave it away to begin with min',
    )
  return count
}

function placementOf(context: Context, service: ReadService, names: ReadonlySet<string>): PlacementRules {
  const { deploy, x } = service
  const diskBytes = parseBytes(x.value.disk ?? 0) ?? 0
  return {
    constraints: deploy.constraints,
    spreadOver: deploy.spreadOver,
    maxPerNode: deploy.maxPerNode,
    affinity: affinityRules(context.report, x, names),
    tolerates: x.value.tolerates ?? [],
    pools: x.value.pools ?? [],
    strategy: x.value.strategy ?? null,
    platform: service.platform,
    priority: x.value.priority ?? 50,
    ...(diskBytes > 0 ? { diskBytes } : {}),
    ...(x.value.scheduler === undefined ? {} : { scheduler: x.value.scheduler }),
  }
}

function updateOf(service: ReadService, unit: UnitSpec, replicas: number, most: number): UpdateRules {
  const holdsVolume = unit.containers.some((container) =>
    container.mounts.some((mount) => mount.kind !== 'tmpfs' && mount.source !== '' && !mount.readOnly),
  )
  const holdsHost =
    unit.published.some((port) => port.mode === 'host') || unit.containers.some((container) => container.hostNetwork === true)
  const cannotRunTwice =
    unit.singletonStrictMs !== null ||
    holdsHost ||
    (holdsVolume && Math.max(replicas, most) <= 1) ||
    service.deploy.mode === 'global'
  return {
    ...UPDATE_DEFAULTS,
    order: cannotRunTwice ? 'stop-first' : 'start-first',
    progressDeadlineMs: ms(service.x.value.progressDeadline) ?? UPDATE_DEFAULTS.progressDeadlineMs,
    ...service.deploy.update,
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
