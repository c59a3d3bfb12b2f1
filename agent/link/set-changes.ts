/** How frames change the sets that the link holds, and how those look on disk. Pure. */
import type { PushedKey } from '../../shared/model/access.ts'
import {
  type Assignment,
  type DesiredFrame,
  type KeysFrame,
  type Route,
  routeKey,
  type RoutesFrame,
  type ServicePolicy,
} from '../../shared/protocol/frames.ts'
import type { KeySet } from './key-ring.ts'

export type DesiredSet = ReadonlyMap<string, Assignment>
export type RouteSet = ReadonlyMap<string, Route>

export function changeDesired(value: DesiredSet, parts: readonly DesiredFrame[]): DesiredSet {
  const next = new Map(value)
  for (const part of parts) {
    for (const instance of part.remove) next.delete(instance)
    for (const assignment of part.put) next.set(assignment.instance, assignment)
  }
  return next
}

export function changeRoutes(value: RouteSet, parts: readonly RoutesFrame[]): RouteSet {
  const next = new Map(value)
  for (const part of parts) {
    for (const key of part.remove) next.delete(key)
    for (const route of part.put) next.set(routeKey(route.service, route.containerPort), route)
  }
  return next
}

export function changeKeys(value: KeySet, parts: readonly KeysFrame[]): KeySet {
  const keys = new Map<string, PushedKey>(value.keys.map((key) => [key.id, key]))
  const policies = new Map<string, ServicePolicy>(value.policies.map((policy) => [policy.service, policy]))
  let { meshSecret } = value
  for (const part of parts) {
    for (const id of part.removeKeys) keys.delete(id)
    for (const key of part.putKeys) keys.set(key.id, key)
    for (const service of part.removePolicies) policies.delete(service)
    for (const policy of part.putPolicies) policies.set(policy.service, policy)
    meshSecret = part.meshSecret ?? meshSecret
  }
  return { keys: [...keys.values()], policies: [...policies.values()], meshSecret }
}

/** Registry credentials are short-lived and stay in memory. */
export function withoutRegistryAuth(value: DesiredSet): unknown {
  return [...value.values()].map(({ registryAuth: _, ...rest }) => rest)
}

export function readDesired(value: unknown): DesiredSet | null {
  if (!Array.isArray(value)) return null
  return new Map((value as readonly Assignment[]).map((assignment) => [assignment.instance, assignment]))
}

export function readRoutes(value: unknown): RouteSet | null {
  if (!Array.isArray(value)) return null
  return new Map((value as readonly Route[]).map((route) => [routeKey(route.service, route.containerPort), route]))
}

export function readKeys(value: unknown): KeySet | null {
  if (value === null || typeof value !== 'object' || !('keys' in value) || !('policies' in value)) return null
  const { keys, policies } = value
  if (!Array.isArray(keys) || !Array.isArray(policies)) return null
  const meshSecret = 'meshSecret' in value && typeof value.meshSecret === 'string' ? value.meshSecret : null
  return { keys: keys as PushedKey[], policies: policies as ServicePolicy[], meshSecret }
}
