/** Who may call what. One row per route; a route without a row cannot be built (create-api refuses it). */
import type { OperatorRole } from '../../shared/model/access.ts'

export type RequiredRole = OperatorRole | 'public'

export const ROUTE_ROLES = {
  'GET /v1/status': 'viewer',
  'GET /v1/apps': 'viewer',
  'POST /v1/apps': 'operator',
  'GET /v1/apps/{app}': 'viewer',
  'PUT /v1/apps/{app}': 'operator',
  'DELETE /v1/apps/{app}': 'operator',
  'POST /v1/apps/{app}/rollback': 'operator',
  'POST /v1/apps/{app}/migrate': 'operator',
  'GET /v1/services': 'viewer',
  'GET /v1/services/{app}/{service}': 'viewer',
  'POST /v1/services/{app}/{service}/scale': 'operator',
  'GET /v1/services/{app}/{service}/decisions': 'viewer',
  'GET /v1/services/{app}/{service}/explain': 'viewer',
  'GET /v1/instances': 'viewer',
  'GET /v1/instances/{instance}': 'viewer',
  'GET /v1/instances/{instance}/explain': 'viewer',
  'GET /v1/instances/{instance}/logs': 'viewer',
  'GET /v1/nodes': 'viewer',
  'GET /v1/nodes/{node}': 'viewer',
  'POST /v1/nodes/{node}/drain': 'operator',
  'POST /v1/nodes/{node}/interruption': 'operator',
  'POST /v1/nodes/{node}/cordon': 'operator',
  'POST /v1/nodes/{node}/uncordon': 'operator',
  'DELETE /v1/nodes/{node}': 'operator',
  'GET /v1/pools': 'viewer',
  'GET /v1/pools/{pool}': 'viewer',
  'PUT /v1/pools/{pool}': 'admin',
  'DELETE /v1/pools/{pool}': 'admin',
  'GET /v1/fleet': 'viewer',
  'GET /v1/machines': 'viewer',
  'GET /v1/machines/{machine}': 'viewer',
  'GET /v1/keys': 'operator',
  'POST /v1/keys': 'admin',
  'DELETE /v1/keys/{key}': 'admin',
  'GET /v1/tokens/operator': 'admin',
  'POST /v1/tokens/operator': 'admin',
  'DELETE /v1/tokens/operator/{token}': 'admin',
  'POST /v1/tokens/join': 'admin',
  'GET /v1/events': 'viewer',
  'GET /v1/history': 'viewer',
  'GET /v1/history/series': 'viewer',
  'GET /v1/operations': 'viewer',
  'POST /v1/join': 'public',
  'GET /v1/ca': 'public',
  'GET /v1/agent-binary/{platform}': 'public',
  'GET /install.sh': 'public',
  'GET /healthz': 'public',
  'GET /metrics': 'viewer',
  'GET /openapi.json': 'public',
  'GET /docs': 'public',
} as const satisfies Record<string, RequiredRole>

export type RouteKey = keyof typeof ROUTE_ROLES

const RANK: Readonly<Record<OperatorRole, number>> = { viewer: 0, operator: 1, admin: 2 }

/** Whether `role` includes `required`: admin ⊃ operator ⊃ viewer. */
export function mayAct(role: OperatorRole, required: RequiredRole): boolean {
  return required === 'public' || RANK[role] >= RANK[required]
}
