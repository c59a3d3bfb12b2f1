/** Requests for placement with plain defaults: a hundredth of a usual node, and no wishes. */
import type { PlacementRules } from '../../shared/model/app.ts'
import type { PlacementRequest } from '../../coordinator/placement/model.ts'
import { aPlacement } from './specs.ts'

/** For the instance of that id (`app/service/slot/generation`); its service is what the id says unless `fields` does. */
export function aRequest(
  id: string,
  fields: Partial<PlacementRequest> = {},
  rules: Partial<PlacementRules> = {},
): PlacementRequest {
  const service = fields.service ?? id.split('/').slice(0, -2).join('/')
  return {
    id,
    service,
    group: service,
    charge: { cpuMillis: 100, memoryBytes: 128 * 2 ** 20, diskBytes: 0 },
    rules: aPlacement(rules),
    hostPorts: [],
    runtime: 'docker',
    images: [],
    volumes: [],
    home: null,
    near: [],
    avoid: [],
    affinityRequired: false,
    global: false,
    ...fields,
  }
}

/** Requests for `count` replicas of a service, slots from 1. */
export function requestsOf(
  service: string,
  count: number,
  fields: Partial<PlacementRequest> = {},
  rules: Partial<PlacementRules> = {},
): PlacementRequest[] {
  return Array.from({ length: count }, (_, index) => aRequest(`${service}/${index + 1}/1`, { service, ...fields }, rules))
}
