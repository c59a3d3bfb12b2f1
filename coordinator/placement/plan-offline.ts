/** `rubato up --dry-run` without a coordinator: where would the instances of an app go? Pure. */
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { Capacity } from '../../shared/model/resources.ts'
import { firstStaticRejection } from './filters.ts'
import type { PlacementNode } from './model.ts'
import { type PlacementPlan, planPlacement } from './plan-placement.ts'
import { requestOf, requestsOfApp } from './requests.ts'

/** An empty, open node of that capacity, which stands for any node whose platform the app may want. */
export function assumedNode(id: NodeId, capacity: Capacity, overrides: Partial<PlacementNode> = {}): PlacementNode {
  return {
    id,
    hostname: id,
    labels: {},
    engineLabels: {},
    taints: [],
    platform: 'linux/amd64',
    runtimes: ['docker', 'process'],
    pool: null,
    provider: null,
    zone: null,
    capacity,
    free: overrides.capacity ?? capacity,
    closed: null,
    services: new Map(),
    repels: new Set(),
    hostPorts: new Set(),
    volumes: new Map(),
    images: new Set(),
    measuredUse: null,
    ...overrides,
  }
}

export function planOffline(app: AppSpec, nodes: readonly PlacementNode[]): PlacementPlan {
  return planPlacement({ requests: requestsOfApp(app, nodes.length), nodes })
}

/** Nodes that a `global` service wants an instance on: those that no rule excludes, full or not; closed ones are not among them. */
export function eligibleNodeIds(app: string, spec: ServiceSpec, nodes: readonly PlacementNode[]): readonly NodeId[] {
  const request = requestOf(`${app}/${spec.name}/1/1`, { app, spec, revision: 1, home: null })
  return nodes.filter((node) => firstStaticRejection(request, node) === null).map((node) => node.id)
}
