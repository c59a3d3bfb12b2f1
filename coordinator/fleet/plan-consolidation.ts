/**
 * Which machine can go? The least used node whose instances all fit on the others by placement's own filters, with headroom
 * left, and whose price is worth the moves; or, when the budget is overrun, the least used surplus node whether they fit or
 * not. As many as may drain at a time, each planned with those before it gone. Pure.
 *
 * A pass does a bounded amount of work however large the cluster is: what cannot fit by sums and sizes alone is not placed, and half
 * of the work goes to the least used nodes, the other half to those that had no turn yet, so that each has its turn (ADR 0027).
 */
import { compare } from '../../shared/compare.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, Pool } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { planPlacement } from '../placement/plan-placement.ts'
import { BUDGET_REASON } from './drain-reasons.ts'
import { isAlive } from './machine-states.ts'
import { paidUntilMs } from './paid-hours.ts'
import { spareRoom } from './spare-room.ts'
import { turnsOf } from './turns.ts'

export interface ConsolidationAction {
  readonly kind: 'drain'
  readonly nodeId: NodeId
  readonly reason: string
}

export interface ConsolidationInput {
  readonly nodes: readonly PlacementNode[]
  /** What runs on a node and would have to move (instances with goal `run`). */
  readonly requestsOn: (nodeId: NodeId) => readonly PlacementRequest[]
  /** Nodes with the data of wanted slots, whether or not their instances run at this moment. */
  readonly keepsData: ReadonlySet<NodeId>
  readonly machineOf: (nodeId: NodeId) => MachineRecord | undefined
  readonly machines: readonly MachineRecord[]
  readonly pools: readonly Pool[]
  /** Why nothing may be given back now. null: it may. */
  readonly hold: string | null
  /** Why this very node is kept, budget or not; default null for all. */
  readonly heldOf?: (node: PlacementNode) => string | null
  /** The sentence of the overrun budget, or null. */
  readonly overBudget: string | null
  /** Room that has to be left: what is expected soon, spare slots, and what still has to leave draining nodes. */
  readonly ghosts: readonly PlacementRequest[]
  /** How many nodes may start to drain now; at least 1. */
  readonly room: number
  /** What the pass before answered as `tried`; default none. */
  readonly tried?: ReadonlySet<NodeId>
  readonly minNodeAgeMs: number
  readonly headroomPercent: number
  /** See FleetConfig. */
  readonly minSavingsRatio: number
}

export interface ConsolidationPlan extends Plan<ConsolidationAction> {
  /** Nodes that have had their turn since all of them last had. */
  readonly tried: ReadonlySet<NodeId>
}

/** Asking what runs on a node, and whether it may fit, in the same measure. */
const WORK_PER_INSTANCE = 0.2

export function planConsolidation(input: ConsolidationInput, nowMs: number): ConsolidationPlan {
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  const say = (subject: string, code: string, text: string) => reasons.push({ subject, code, text })
  if (input.hold !== null && input.overBudget === null) {
    say('fleet', 'holds', input.hold)
    return { actions: [], reasons, wakeAtMs, tried: input.tried ?? new Set() }
  }
  const pools = new Map(input.pools.map((pool) => [pool.name, pool]))
  const alive = new Map<string, number>()
  for (const machine of input.machines) if (isAlive(machine)) alive.set(machine.pool, (alive.get(machine.pool) ?? 0) + 1)

  const candidates = input.nodes
    .filter((node) => node.closed === null)
    .map((node) => ({ node, isIdle: node.services.size === 0, use: reservedUse(node) }))
    // One that only waits for its last instance to stop still has it reserved, and yet nothing there would have to move.
    .sort((a, b) => Number(b.isIdle) - Number(a.isIdle) || a.use - b.use || compare(a.node.id, b.node.id))
  const actions: ConsolidationAction[] = []
  const give = (node: PlacementNode, pool: Pool, reason: string) => {
    actions.push({ kind: 'drain', nodeId: node.id, reason })
    alive.set(pool.name, (alive.get(pool.name) ?? 0) - 1)
  }
  const size = sizeOfFleet(input, candidates)
  // What does not even fit now asks nothing of the nodes that stay.
  const kept = planPlacement({ requests: input.ghosts, nodes: input.nodes }).assignments.map(({ request }) => request)
  let others = input.nodes.map((node) => withHeadroom(node, input.headroomPercent))
  let spare = spareRoom(others)
  let leaving: readonly PlacementRequest[] = []
  const turns = turnsOf(input.tried ?? new Set())
  for (const { node } of candidates) {
    if (actions.length >= input.room) {
      turns.leaveRest()
      break
    }
    const machine = input.machineOf(node.id)
    const pool = machine ? pools.get(machine.pool) : undefined
    if (machine?.phase !== 'joined' || !pool) continue
    if (pool.static) continue
    if ((alive.get(pool.name) ?? 0) <= pool.min) {
      say(node.id, 'minimum', `pool ${pool.name} keeps at least ${pool.min}`)
      continue
    }
    if (node.volumes.size > 0 || input.keepsData.has(node.id)) {
      say(node.id, 'volume', `holds local volumes${node.volumes.size > 0 ? `: ${[...node.volumes.keys()].join(', ')}` : ''}`)
      continue
    }
    const held = input.heldOf?.(node) ?? null
    if (held !== null) {
      say(node.id, 'held', held)
      continue
    }
    if (input.overBudget !== null) {
      give(node, pool, `${BUDGET_REASON} ${input.overBudget}`)
      continue
    }
    const oldEnoughAtMs = (machine.joinedAtMs ?? machine.requestedAtMs) + input.minNodeAgeMs
    if (nowMs < oldEnoughAtMs) {
      say(node.id, 'young', `is younger than ${Math.round(input.minNodeAgeMs / 1000)} s`)
      wakeAtMs = earliest(wakeAtMs, oldEnoughAtMs)
      continue
    }
    const paidMs = paidUntilMs(pool, machine, nowMs)
    if (paidMs !== null) {
      say(node.id, 'paid-hour', 'its hour is paid for')
      wakeAtMs = earliest(wakeAtMs, paidMs)
      continue
    }
    if (!turns.take(node.id)) continue
    const moving = input.requestsOn(node.id).filter((request) => !request.global)
    turns.spend(WORK_PER_INSTANCE * moving.length)
    const chosen = moving.find((request) => request.rules.scheduler !== undefined)
    if (chosen) {
      say(node.id, 'scheduler', `runs ${chosen.id}, and nobody knows where scheduler ${chosen.rules.scheduler} would put it`)
      continue
    }
    const saved = size.priceUsdPerHour > 0 ? machine.priceUsdPerHour / size.priceUsdPerHour : 1 / candidates.length
    const disturbed = size.instances > 0 ? moving.length / size.instances : 0
    if (saved < input.minSavingsRatio * disturbed) {
      say(node.id, 'not-worth-it', `${percent(saved)} of the price for ${percent(disturbed)} of the instances`)
      continue
    }
    const refusal = spare.refusal([...leaving, ...moving], node.id)
    if (refusal !== null) {
      say(node.id, 'needed', refusal)
      continue
    }
    const requests = [...leaving, ...moving, ...kept]
    if (requests.length > 0) {
      const staying = withRoomFor(
        requests,
        others.filter((other) => other.id !== node.id),
      )
      turns.spend(staying.length, 1)
      const plan = planPlacement({ requests, nodes: staying })
      const stuck = plan.refusals.find(({ request }) => !kept.includes(request))
      if (stuck) {
        say(node.id, 'needed', `${stuck.instance} would fit on no other node`)
        continue
      }
      if (plan.refusals.length > 0) {
        say(node.id, 'kept-free', `its room is kept for ${plan.refusals[0]?.request.service}`)
        continue
      }
    }
    const what =
      moving.length === 0 ? 'is empty' : `its ${moving.length} instance${moving.length === 1 ? '' : 's'} fit on the others`
    give(node, pool, `least used node, ${what}`)
    leaving = [...leaving, ...moving]
    others = others.filter((other) => other.id !== node.id)
    spare = spareRoom(others)
  }
  return { actions, reasons, wakeAtMs, tried: turns.tried() }
}

/** The nodes that could take one of the requests, with those whose volumes or instances the others' places depend on. */
export function withRoomFor(requests: readonly PlacementRequest[], nodes: readonly PlacementNode[]): readonly PlacementNode[] {
  const cpuMillis = Math.min(...requests.map(({ charge }) => charge.cpuMillis))
  const memoryBytes = Math.min(...requests.map(({ charge }) => charge.memoryBytes))
  const near = new Set(requests.flatMap((request) => request.near))
  return nodes.filter(
    ({ free, volumes, services }) =>
      (free.slots >= 1 && free.cpuMillis >= cpuMillis && free.memoryBytes >= memoryBytes) ||
      volumes.size > 0 ||
      [...near].some((service) => services.has(service)),
  )
}

/** What the whole fleet costs and runs: shares of it tell savings and disruption apart. */
function sizeOfFleet(input: ConsolidationInput, candidates: readonly { readonly node: PlacementNode }[]) {
  let priceUsdPerHour = 0
  let instances = 0
  for (const { node } of candidates) {
    priceUsdPerHour += input.machineOf(node.id)?.priceUsdPerHour ?? 0
    for (const count of node.services.values()) instances += count
  }
  return { priceUsdPerHour, instances }
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`
}

/** Reserved share of the node's scarcest resource, 0–1. */
export function reservedUse(node: PlacementNode): number {
  const { capacity, free } = node
  const used = (total: number, rest: number) => (total > 0 ? (total - rest) / total : 0)
  return Math.max(
    used(capacity.cpuMillis, free.cpuMillis),
    used(capacity.memoryBytes, free.memoryBytes),
    used(capacity.diskBytes, free.diskBytes),
    used(capacity.slots, free.slots),
  )
}

/** The node with less room than it has, by that share of its capacity. */
export function withHeadroom(node: PlacementNode, percent: number): PlacementNode {
  const { capacity, free } = node
  const keep = percent / 100
  return {
    ...node,
    free: {
      cpuMillis: free.cpuMillis - capacity.cpuMillis * keep,
      memoryBytes: free.memoryBytes - capacity.memoryBytes * keep,
      diskBytes: free.diskBytes - capacity.diskBytes * keep,
      slots: free.slots,
    },
  }
}
