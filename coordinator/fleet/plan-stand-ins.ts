/**
 * Machines that take longer than their pool has taught us while work waits for them: one more is bought elsewhere, once, and
 * whichever of the two comes second is cancelled unless it is needed by then. Pure. Times are epoch ms.
 */
import type { InstanceId, MachineId } from '../../shared/model/identity.ts'
import type { MachineRecord } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import type { PlacementRequest } from '../placement/model.ts'
import { isAlive, isComing } from './machine-states.ts'
import { leadOf, type PoolLead } from './plan-leads.ts'
import { cheapestPacking, type Kind, type PackingLimits } from './plan-packing.ts'

export type StandInAction =
  | {
      readonly kind: 'buy'
      readonly pool: string
      readonly instances: readonly InstanceId[]
      readonly reason: string
      readonly standInFor: MachineId
    }
  | { readonly kind: 'cancel'; readonly machineId: MachineId; readonly reason: string }

export interface StandInInput {
  readonly machines: readonly MachineRecord[]
  readonly leads: ReadonlyMap<string, PoolLead>
  /** A machine is slow once it takes this many times its pool's learned p90; 0: never. */
  readonly factor: number
  /** What waits for which machine on its way. */
  readonly waitingOn: ReadonlyMap<MachineId, readonly PlacementRequest[]>
  /** What can be bought now. */
  readonly kinds: readonly Kind[]
  readonly limits: PackingLimits
  /** How many requests fit nowhere, and how many would if that machine on its way did not come. */
  readonly refused: number
  readonly refusedWithout: (id: MachineId) => number
  readonly nowMs: number
}

/** Clouds are not that regular: nothing is slow before this. */
const LEAST_SLOW_MS = 5_000
/** Attempts that came to nothing, after which a cloud is not waited for alone. */
const REFUSALS = 3

export function planStandIns(input: StandInInput): Plan<StandInAction> {
  const actions: StandInAction[] = []
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  const coming = input.machines.filter(isComing)
  if (coming.length === 0) return { actions, reasons, wakeAtMs }
  const byId = new Map(input.machines.map((machine) => [machine.id, machine]))
  const standInOf = new Map<MachineId, MachineRecord>()
  for (const machine of input.machines)
    if (machine.standInFor !== undefined && isAlive(machine)) standInOf.set(machine.standInFor, machine)

  for (const machine of coming) {
    const partner = standInOf.get(machine.id) ?? byId.get(machine.standInFor ?? '')
    if (partner?.phase === 'joined' && input.refusedWithout(machine.id) <= input.refused) {
      const reason = `${partner.id} came first and holds what it was bought for`
      actions.push({ kind: 'cancel', machineId: machine.id, reason })
      reasons.push({ subject: machine.id, code: 'cancelled', text: reason })
    }
  }

  for (const machine of coming) {
    const waits = input.waitingOn.get(machine.id) ?? []
    const { joinP90Ms } = leadOf(input.leads, machine.pool)
    // A stand-in has none of its own: two machines for one are enough.
    if (waits.length === 0 || input.factor <= 0 || machine.standInFor !== undefined || standInOf.has(machine.id)) continue
    const refusing = machine.phase === 'requested' && machine.attempts >= REFUSALS
    if (joinP90Ms === null && !refusing) continue
    const slowAtMs = machine.requestedAtMs + Math.max(LEAST_SLOW_MS, (joinP90Ms ?? 0) * input.factor)
    if (input.nowMs < slowAtMs && !refusing) {
      wakeAtMs = earliest(wakeAtMs, slowAtMs)
      continue
    }
    // It all fits on what is there or comes anyway: nothing waits for this one alone.
    if (input.refusedWithout(machine.id) <= input.refused) continue
    const elsewhere = input.kinds.filter((kind) => kind.pool.name !== machine.pool)
    const pick = cheapestPacking(waits, elsewhere, input.limits).picks[0]
    const late = refusing
      ? `${machine.id} of ${machine.pool} could not be created ${machine.attempts} times`
      : `${machine.id} of ${machine.pool} takes longer than ${input.factor} × its usual ${Math.round((joinP90Ms ?? 0) / 1000)} s`
    if (!pick) {
      reasons.push({ subject: machine.id, code: 'slow-boot', text: `${late}; no other pool can stand in` })
      continue
    }
    const { name } = pick.kind.pool
    const reason = `${late} while work waits: ${name} stands in`
    const instances = pick.requests.map((request) => request.id)
    actions.push({ kind: 'buy', pool: name, instances, reason, standInFor: machine.id })
    reasons.push({ subject: name, code: 'slow-boot', text: reason })
    // One per pass: the next pass sees what this one costs.
    break
  }
  return { actions, reasons, wakeAtMs }
}
