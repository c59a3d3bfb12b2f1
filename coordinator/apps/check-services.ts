/** What must hold between the services of an app, and for one of them with all its parts together. Pure: reports faults. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import type { PortProtocol } from '../../shared/model/unit.ts'
import type { Context } from './context.ts'
import { protocolOf, type ReadPort } from './read-ports.ts'
import type { ReadDependency } from './read-dependencies.ts'
import type { ReadService } from './read-service.ts'
import { needsKeys, partOf } from './read-x-rubato.ts'
import { shorten } from './report.ts'

/** Services that wait for each other never start. */
export function checkCycles(
  context: Context,
  services: readonly ReadService[],
  dependencies: ReadonlyMap<string, readonly ReadDependency[]>,
  mains: ReadonlyMap<string, string>,
): void {
  const done = new Set<string>()
  const trail: string[] = []
  const unitOf = (name: string): string => mains.get(name) ?? name
  const edges = (main: string): ReadDependency[] =>
    services.filter((service) => unitOf(service.name) === main).flatMap((service) => [...(dependencies.get(service.name) ?? [])])
  const visit = (name: string): void => {
    if (done.has(name)) return
    trail.push(name)
    for (const dependency of edges(name)) {
      const next = unitOf(dependency.service)
      if (next === name) continue
      const at = trail.indexOf(next)
      if (at >= 0)
        context.report.fault(
          dependency.cursor,
          `services wait for each other in a circle: ${shorten([...trail.slice(at), next].join(' → '), 300)}`,
          'remove one of these dependencies',
        )
      else visit(next)
    }
    trail.pop()
    done.add(name)
  }
  for (const service of services) visit(unitOf(service.name))
}

/** A port of the nodes leads to one service. */
export function checkPublished(context: Context, services: readonly ReadService[]): void {
  const taken = new Map<string, { service: string; line: number; mode: string }>()
  for (const service of services)
    for (const port of service.ports) {
      if (port.published === null) continue
      const key = `${port.published.port}/${port.transport}`
      const before = taken.get(key)
      if (before === undefined) taken.set(key, { service: service.name, line: port.cursor.at.line, mode: port.published.mode })
      else if (before.service === service.name || before.mode !== 'host' || port.published.mode !== 'host')
        context.report.fault(
          port.cursor,
          `port ${key} is published twice`,
          `"${shorten(before.service)}" publishes it in line ${before.line}`,
        )
    }
}

/** Others call it by a port it names nowhere. */
export function checkReachable(
  context: Context,
  services: readonly ReadService[],
  dependencies: ReadonlyMap<string, readonly ReadDependency[]>,
): void {
  const called = new Set(
    [...dependencies.values()]
      .flat()
      .filter((item) => item.condition !== 'completed')
      .map((item) => item.service),
  )
  for (const service of services)
    if (called.has(service.name) && service.ports.length === 0 && service.sidecarOf === null)
      context.report.warn(
        service.cursor,
        `others depend on "${shorten(service.name)}", but it names no port: add "expose" so that the gateway leads to it`,
      )
}

/** Keys are told by http only. */
export function checkAccess(context: Context, service: ReadService, ports: readonly ReadPort[], fallback: PortProtocol): void {
  if (!needsKeys(service.x.value)) return
  const at = partOf(service.x, 'access')
  if (ports.length === 0) context.report.warn(at, 'access rules without a port: name the port in "expose" or "ports"')
  for (const port of ports) {
    const protocol = protocolOf(port, fallback)
    if (protocol === 'tcp')
      context.report.fault(
        port.appProtocol === null ? at : port.cursor,
        `access rules need http, but port ${port.containerPort} speaks tcp`,
        'set "app_protocol: http" of the port (or x-rubato.protocol), or make access public',
      )
    else if (protocol === 'udp' && port.published !== null)
      context.report.fault(
        port.cursor,
        `access rules need http, but port ${port.containerPort} is published for udp`,
        'move it to a service of its own, or make access public',
      )
  }
}

/** One instance on each node leaves nothing to choose. */
export function checkScheduler(context: Context, service: ReadService): void {
  if (service.x.value.scheduler !== undefined && service.deploy.mode === 'global')
    context.report.fault(
      partOf(service.x, 'scheduler'),
      'a global service runs on every node, so no scheduler can choose for it',
      'remove scheduler, or "mode: global"',
    )
}

/** A strict singleton never runs twice, not even during an update. */
export function checkSingleton(context: Context, service: ReadService, scale: ServiceSpec['scale'], replicas: number): void {
  if (service.x.value.singleton === undefined) return
  if ((scale?.max ?? replicas) > 1 || service.deploy.mode === 'global')
    context.report.fault(
      partOf(service.x, 'singleton'),
      'a strict singleton runs once, but more instances are asked for',
      'set replicas (or scale.max) to 1',
    )
  if (service.deploy.update.order === 'start-first')
    context.report.fault(
      partOf(service.x, 'singleton'),
      'a strict singleton cannot be updated start-first: two would run at once',
      'remove update_config.order',
    )
}
