/** What one service would have pulled ahead: for the update under way, and for instances that it may want next. Pure. */
import type { ScaleRules, ServiceSpec } from '../../shared/model/app.ts'
import { type NodeId, parseInstanceId } from '../../shared/model/identity.ts'
import { hasVolumes } from '../services/service-plan.ts'
import { stopsFirst } from '../services/draft.ts'
import type { AppRecord, InstanceRecord, ServiceRecord } from '../state/objects.ts'
import { type GrowthWant, imagesToPull, type PullWant } from './plan-pull-ahead.ts'
import { type ChargeOf, requestOf } from './requests.ts'

export interface ServiceHere {
  readonly app: AppRecord
  readonly spec: ServiceSpec
  readonly record: ServiceRecord
  readonly instances: readonly InstanceRecord[]
}

/** Nodes of one update that pull at once: this many turns of it ahead, within these bounds. */
const TURNS_AHEAD = 2
const UPDATE_NODES = { least: 4, most: 16 }
/** Instances of one service that are planned ahead: when it merely may grow, and when its forecast says that it will. */
const MAY_GROW = 2
const WILL_GROW = 8
/** Growth this recent tends to go on. */
const RECENT_MS = 3_600_000

/** Where outdated instances stop for new ones of the present revision; null: no update that would go on, or none that stops first. */
export function updateWantOf({ app, spec, record, instances }: ServiceHere): PullWant | null {
  const images = imagesToPull(spec.unit)
  if (images.length === 0 || isHalted(app, record) || !(stopsFirst(spec) || hasVolumes(spec))) return null
  const outdated = outdatedOf(spec, instances).sort((a, b) => slotOf(a) - slotOf(b))
  const nodes = new Set<NodeId>()
  const most = aheadOf(spec)
  for (const { nodeId } of outdated) if (nodeId !== null && nodes.size < most) nodes.add(nodeId)
  return nodes.size === 0 ? null : { service: record.id, images, nodes: [...nodes] }
}

/**
 * Instances that the service may want next, and how likely it is (lower is more); null: it wants none. `ahead`: how many the
 * forecast says that it will want; null: nothing. `rules`: those that scaling goes by now; null: it does not scale.
 */
export function growthWantOf(
  here: ServiceHere,
  by: { readonly rules: ScaleRules | null; readonly ahead: number | null; readonly chargeOf?: ChargeOf },
  nowMs: number,
): { readonly want: GrowthWant; readonly urgency: number } | null {
  const { app, spec, record, instances } = here
  const images = imagesToPull(spec.unit)
  // A scheduler of its own would have to be asked where they go.
  if (images.length === 0 || spec.mode === 'global' || spec.placement.scheduler !== undefined) return null
  const update = hasVolumes(spec) || stopsFirst(spec) || isHalted(app, record) ? 0 : outdatedOf(spec, instances).length
  const growth = growthOf(here, by, nowMs)
  const count = Math.max(Math.min(update, aheadOf(spec)), growth.count)
  if (count <= 0) return null
  const requests = Array.from({ length: count }, (_, index) =>
    requestOf(`~${record.id}/ahead-${index + 1}`, {
      app: app.name,
      spec,
      revision: app.revision,
      home: null,
      ...(by.chargeOf ? { chargeOf: by.chargeOf } : {}),
    }),
  )
  return { want: { service: record.id, images, requests }, urgency: update > 0 ? 0 : growth.urgency }
}

function growthOf(
  { spec, record, instances }: ServiceHere,
  { rules, ahead }: { readonly rules: ScaleRules | null; readonly ahead: number | null },
  nowMs: number,
): { readonly count: number; readonly urgency: number } {
  if (rules === null || spec.job !== undefined || record.pinned !== null) return { count: 0, urgency: 3 }
  const present = Math.max(record.desired, new Set(instances.flatMap((one) => (one.goal === 'run' ? [slotOf(one)] : []))).size)
  const room = rules.max - present
  if (ahead !== null && ahead > present) return { count: Math.min(WILL_GROW, room, ahead - present), urgency: 1 }
  const last = record.lastScale
  const isGrowing = last !== null && last.to > last.from && nowMs - last.atMs < RECENT_MS
  return { count: Math.min(MAY_GROW, room), urgency: isGrowing ? 2 : 3 }
}

function outdatedOf(spec: ServiceSpec, instances: readonly InstanceRecord[]): InstanceRecord[] {
  if (spec.job !== undefined) return []
  return instances.filter(({ goal, specHash }) => goal === 'run' && specHash !== spec.specHash)
}

/** An update that stopped by itself goes on only with the next revision. */
function isHalted({ revision }: AppRecord, { rollout }: ServiceRecord): boolean {
  return rollout?.toRevision === revision && (rollout.phase === 'paused' || rollout.phase === 'failed')
}

function aheadOf({ update }: ServiceSpec): number {
  const parallelism = update.parallelism <= 0 ? UPDATE_NODES.most : update.parallelism
  return Math.min(UPDATE_NODES.most, Math.max(UPDATE_NODES.least, TURNS_AHEAD * parallelism))
}

function slotOf({ id }: InstanceRecord): number {
  return parseInstanceId(id)?.slot ?? 0
}
