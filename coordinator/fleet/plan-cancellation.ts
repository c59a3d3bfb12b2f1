/**
 * Which orders of machines are needed no more? A machine on its way is cancelled when all that is wanted fits, with headroom, on what
 * is there and on what was ordered before it: what it was bought for has gone by, or found another place. Nobody has to move for it, and
 * the longer machines take the more it spares. Buying asks for no headroom: what was just cancelled is not at once ordered again.
 * Pure. Times are epoch ms.
 */
import { compare } from '../../shared/compare.ts'
import type { MachineId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import { isAlive, isComing } from './machine-states.ts'
import { paidUntilMs } from './paid-hours.ts'
import { withHeadroom, withRoomFor } from './plan-consolidation.ts'
import { kindsOf } from './plan-kinds.ts'
import { PACK } from './plan-packing.ts'

export interface CancellationAction {
  readonly kind: 'cancel'
  readonly machineId: MachineId
  readonly reason: string
}

export interface CancellationInput {
  readonly nodes: readonly PlacementNode[]
  readonly machines: readonly MachineRecord[]
  readonly pools: readonly Pool[]
  /** All that has no place yet, or may soon need one: it keeps the orders that it fits on. */
  readonly wanted: readonly PlacementRequest[]
  /** An order younger than this stays: what it is for may not be known in full. */
  readonly leastAgeMs: number
  readonly headroomPercent: number
}

export function planCancellation(input: CancellationInput, nowMs: number): Plan<CancellationAction> {
  const actions: CancellationAction[] = []
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  const pools = new Map(input.pools.map((pool) => [pool.name, pool]))
  const alive = new Map<string, number>()
  for (const { pool } of input.machines.filter(isAlive)) alive.set(pool, (alive.get(pool) ?? 0) + 1)

  for (const machine of unneeded(input).reverse()) {
    const pool = pools.get(machine.pool)
    if (pool === undefined || pool.static || (alive.get(pool.name) ?? 0) <= pool.min) continue
    const fromMs = Math.max(machine.requestedAtMs + input.leastAgeMs, paidUntilMs(pool, machine, nowMs) ?? 0)
    if (nowMs < fromMs) {
      wakeAtMs = earliest(wakeAtMs, fromMs)
      continue
    }
    const reason = 'what it was ordered for is wanted no more, or fits elsewhere'
    actions.push({ kind: 'cancel', machineId: machine.id, reason })
    reasons.push({ subject: machine.id, code: 'cancelled', text: reason })
    alive.set(pool.name, (alive.get(pool.name) ?? 0) - 1)
  }
  return { actions, reasons, wakeAtMs }
}

/** Machines on their way that nothing would go to, the oldest order first. Those with a stand-in, and stand-ins, are left to plan-stand-ins. */
function unneeded(input: CancellationInput): MachineRecord[] {
  const paired = new Set(input.machines.flatMap(({ id, standInFor }) => (standInFor === undefined ? [] : [id, standInFor])))
  const coming = input.machines.filter(isComing).sort((a, b) => a.requestedAtMs - b.requestedAtMs || compare(a.id, b.id))
  if (coming.every(({ id }) => paired.has(id))) return []
  // Nobody knows where another scheduler would put them.
  if (input.wanted.some(({ rules }) => rules.scheduler !== undefined)) return []
  const place = (requests: readonly PlacementRequest[], nodes: readonly PlacementNode[]) =>
    planPlacement({ requests, nodes: withRoomFor(requests, nodes), options: PACK }).refusals.map(({ request }) => request)
  const roomy = (node: PlacementNode) => withHeadroom(node, input.headroomPercent)
  const kinds = kindsOf(input.pools, input.nodes, input.machines)
  const wanted = input.wanted.filter((request) => !request.global)
  const onItsWay = (machine: MachineRecord): readonly PlacementNode[] => {
    const kind = kinds.get(machine.pool)
    return kind === undefined ? [] : [{ ...kind.node, id: machine.id, hostname: machine.id }]
  }
  let rest = place(wanted, input.nodes.map(roomy))
  return coming.filter((machine) => {
    if (rest.length === 0) return !paired.has(machine.id)
    const node = onItsWay(machine)
    const left = place(rest, node.map(roomy))
    // What is too large for a machine with headroom was ordered one without.
    const after = left.length < rest.length ? left : place(rest, node)
    const isUnneeded = after.length === rest.length && !paired.has(machine.id)
    rest = after
    return isUnneeded
  })
}
