/** Which policies and keys a node needs: those of the services that it runs, and no more. Pure. */
import type { KeyRecord, PushedKey } from '../../shared/model/access.ts'
import { parseInstanceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { ServicePolicy } from '../../shared/protocol/frames.ts'
import type { AppRecord, NodeAssignments } from '../state/objects.ts'
import { specsOf } from '../services/kept-specs.ts'

/** Policies by service id. A policy changes with a deploy, at once for all instances; objects of `previous` are reused. */
export function planPolicies(
  wanted: NodeAssignments | undefined,
  appOf: (name: string) => AppRecord | undefined,
  previous: ReadonlyMap<string, ServicePolicy>,
): ReadonlyMap<string, ServicePolicy> {
  const policies = new Map<string, ServicePolicy>()
  for (const record of wanted?.instances ?? []) {
    const service = serviceIdOf(record.id)
    const identity = parseInstanceId(record.id)
    if (policies.has(service) || !identity) continue
    const app = appOf(identity.app)
    const access = app && specsOf(app, identity.service)[0]?.spec.unit.access
    const before = previous.get(service)
    if (!access) continue
    policies.set(service, before && sameJson(before.access, access) ? before : { service, access })
  }
  return policies
}

/** Which keys a set of policies can accept. */
export interface KeyNeed {
  readonly any: boolean
  readonly names: ReadonlySet<string>
  readonly roles: ReadonlySet<string>
  /** Equal texts mean equal needs: nodes with equal needs share one key set. */
  readonly text: string
}

export function keyNeedOf(policies: ReadonlyMap<string, ServicePolicy>): KeyNeed {
  const names = new Set<string>()
  const roles = new Set<string>()
  let any = false
  for (const { access } of policies.values()) {
    any ||= access.anyKey
    for (const name of access.allow) names.add(name)
    for (const role of access.roles) roles.add(role)
  }
  const text = any ? '*' : JSON.stringify([[...names].sort(), [...roles].sort()])
  return { any, names, roles, text }
}

/** Keys by id that are in force at `nowMs` (epoch ms) and that the need can accept; objects of `previous` are reused. */
export function planKeys(
  need: KeyNeed,
  keys: Iterable<KeyRecord>,
  nowMs: number,
  previous: ReadonlyMap<string, PushedKey>,
): ReadonlyMap<string, PushedKey> {
  const wanted = new Map<string, PushedKey>()
  for (const key of keys) {
    if (key.revokedAtMs !== null || (key.expiresAtMs !== null && key.expiresAtMs <= nowMs)) continue
    if (!need.any && !need.names.has(key.name) && !key.roles.some((role) => need.roles.has(role))) continue
    const { id, name, roles, secretHash, expiresAtMs } = key
    const next: PushedKey = { id, name, roles, secretHash, expiresAtMs }
    const before = previous.get(id)
    wanted.set(id, before && sameJson(before, next) ? before : next)
  }
  return wanted
}

function sameJson(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b)
}
