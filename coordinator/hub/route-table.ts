/** Routes of all services, kept up to date service by service, so that one instance's readiness costs one service's recomputation. */
import { partsOfService } from './names.ts'
import { serviceId } from '../../shared/model/identity.ts'
import { type Route, routeKey } from '../../shared/protocol/frames.ts'
import type { Observed } from '../state/observed.ts'
import type { Snapshot } from '../state/state.ts'
import { isPublished, planServiceRoutes } from './plan-routes.ts'

export interface ServiceRoutesChange {
  readonly service: string
  readonly put: readonly Route[]
  readonly remove: readonly string[]
  /** The service began or ceased to concern every node. */
  readonly publishedChanged: boolean
}

export interface RouteTable {
  /** Recomputes one service; null when nothing of it changed. */
  refresh(service: string): ServiceRoutesChange | null
  of(service: string): readonly Route[]
  /** Services that every node needs. */
  readonly published: ReadonlySet<string>
  /** What a node needs that runs something of these apps. */
  servicesFor(apps: Iterable<string>): Iterable<string>
}

export function createRouteTable(snapshot: Snapshot, observed: Observed): RouteTable {
  const table = new Map<string, readonly Route[]>()
  const published = new Set<string>()
  const of = (service: string) => table.get(service) ?? []
  return {
    of,
    published,
    refresh(service) {
      const before = of(service)
      const after = compute(service, before)
      const wasPublished = published.has(service)
      if (isPublished(after)) published.add(service)
      else published.delete(service)
      if (after.length > 0) table.set(service, after)
      else table.delete(service)
      const put = after.filter((route) => !before.includes(route))
      const kept = new Set(after.map((route) => route.containerPort))
      const remove = before
        .filter((route) => !kept.has(route.containerPort))
        .map((route) => routeKey(service, route.containerPort))
      const publishedChanged = wasPublished !== published.has(service)
      return put.length === 0 && remove.length === 0 && !publishedChanged ? null : { service, put, remove, publishedChanged }
    },
    *servicesFor(apps) {
      const given = new Set<string>()
      for (const name of apps)
        for (const spec of snapshot.get('app', name)?.spec.services ?? []) {
          const id = serviceId(name, spec.name)
          given.add(id)
          yield id
        }
      for (const id of published) if (!given.has(id)) yield id
    },
  }

  function compute(id: string, before: readonly Route[]): readonly Route[] {
    const { app, service } = partsOfService(id)
    const spec = snapshot.get('app', app)?.spec.services.find((candidate) => candidate.name === service)
    if (!spec) return []
    const after = planServiceRoutes({
      id,
      spec,
      ordinal: snapshot.get('service', id)?.ordinal ?? 0,
      instances: snapshot.instancesOf(id),
      observation: observed.instance,
      nodeObservation: observed.node,
      node: (node) => snapshot.get('node', node),
    })
    // Unchanged routes keep their identity: that is what tells nodes apart from those who have them already.
    const old = new Map(before.map((route) => [route.containerPort, route]))
    return after.map((route) => {
      const same = old.get(route.containerPort)
      return same && JSON.stringify(same) === JSON.stringify(route) ? same : route
    })
  }
}
