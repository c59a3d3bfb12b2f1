/**
 * For what is a machine of a pool bought in vain? A pool promises what its machines then turn out not to have: less memory, no runtime,
 * another platform. The latest ones are asked, those too that are gone by now, whether they would hold the request if they were empty. While
 * most of them would not, none is bought for it: not for an hour after the latest of two, twice as long after each further one, a
 * day at most; then one is tried. Two must agree, and most of the latest, so that no single node that lies keeps others from being bought. Pure.
 */
import { specHashOf } from '../../shared/canonical.ts'
import { compare } from '../../shared/compare.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { MachineRecord, Offered, Pool } from '../../shared/model/node.ts'
import { earliest } from '../../shared/plan.ts'
import { firstStaticRejection, shortOf } from '../placement/filters.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { isComing } from './machine-states.ts'
import { offeredShare } from './plan-kinds.ts'
import type { Kind } from './plan-packing.ts'

export interface InVainInput {
  readonly requests: readonly PlacementRequest[]
  /** Of pools that may be bought from. */
  readonly kinds: readonly Kind[]
  /** Names of all pools. */
  readonly pools: readonly string[]
  readonly nodes: readonly PlacementNode[]
  readonly machines: readonly MachineRecord[]
  readonly nowMs: number
}

export interface InVain {
  /**
   * `paused`: nothing is bought from the pool for the group. `tried`: one machine is. `settling`: nothing is for the moment, since the
   * latest has only just joined, or the one that is tried is on its way.
   */
  readonly state: 'paused' | 'tried' | 'settling'
  readonly untilMs: number
  readonly text: string
}

export interface InVainPlan {
  /** To be bought for, each bound to pools that are not in vain. */
  readonly wanted: readonly PlacementRequest[]
  /** Instances that nothing is bought for. Their groups are in `inVain`. */
  readonly left: ReadonlySet<InstanceId>
  /** Group → pool → why none of it is bought. */
  readonly inVain: ReadonlyMap<string, ReadonlyMap<string, InVain>>
  readonly wakeAtMs: number | null
}

const NOTHING_IN_VAIN: InVainPlan = { wanted: [], left: new Set(), inVain: new Map(), wakeAtMs: null }
/** Machines that are asked. */
const LATEST = 7
const FORGOTTEN_MS = 2 * 86_400_000
const FIRST_PAUSE_MS = 3_600_000
const LONGEST_PAUSE_MS = 86_400_000
/** An agent may join before its engine answers. */
const SETTLE_MS = 60_000

/** What a pool's machines are made of: those made of something else say nothing of the next one. */
export function madeOf({ offering, image, zone, userData, settings }: Pool): string {
  return specHashOf([offering, image, zone, userData, settings])
}

/** What is to be kept of a node when its machine goes. */
export function offeredBy({ capacity, platform, runtimes }: Offered): Offered {
  return { capacity, platform, runtimes }
}

export function planInVain(input: InVainInput): InVainPlan {
  const { kinds, nowMs } = input
  if (input.requests.length === 0) return NOTHING_IN_VAIN
  const inVain = new Map<string, ReadonlyMap<string, InVain>>()
  const bound = new Map<string, readonly string[] | null>()
  const onTrial = new Set<string>()
  const left = new Set<InstanceId>()
  const witnesses = witnessesOf(input)
  const coming = new Set(input.machines.filter(isComing).map(({ pool }) => pool))
  let wakeAtMs: number | null = null

  const look = (request: PlacementRequest): readonly string[] | null => {
    const found = new Map<string, InVain>()
    let others = 0
    for (const kind of kinds) {
      const { name } = kind.pool
      if (refusalOf(request, kind.node) !== null) continue
      const verdict = verdictOf(request, witnesses.get(name) ?? [], coming.has(name), nowMs)
      if (verdict === null) others += 1
      else found.set(name, verdict)
    }
    if (found.size === 0) return null
    inVain.set(request.group, found)
    for (const { state, untilMs } of found.values()) if (state !== 'tried') wakeAtMs = earliest(wakeAtMs, untilMs)
    const own = request.rules.pools.length > 0 ? request.rules.pools : input.pools
    if (others > 0) return own.filter((pool) => !found.has(pool))
    const tried = own.filter((pool) => found.get(pool)?.state === 'tried')
    if (tried.length > 0) onTrial.add(request.group)
    return tried
  }

  const wanted = input.requests.flatMap((request) => {
    const isFirst = !bound.has(request.group)
    if (isFirst) bound.set(request.group, look(request))
    const pools = bound.get(request.group) ?? null
    if (pools === null) return [request]
    if (pools.length === 0 || (onTrial.has(request.group) && !isFirst)) {
      left.add(request.id)
      return []
    }
    return [{ ...request, rules: { ...request.rules, pools } }]
  })
  return { wanted, left, inVain, wakeAtMs }
}

/** What a machine of the pool turned out to be, in place of what the next one is taken for. */
interface Witness {
  readonly node: PlacementNode
  readonly joinedAtMs: number
}

function witnessesOf({ kinds, nodes, machines, nowMs }: InVainInput): ReadonlyMap<string, readonly Witness[]> {
  const byPool = new Map<string, MachineRecord[]>()
  for (const machine of machines) {
    const isOld = (machine.goneAtMs ?? nowMs) < nowMs - FORGOTTEN_MS
    if (machine.joinedAtMs === null || machine.nodeId === null || isOld) continue
    const list = byPool.get(machine.pool)
    if (list) list.push(machine)
    else byPool.set(machine.pool, [machine])
  }
  const nodeOf = new Map(nodes.map((node) => [node.id, node]))
  return new Map(
    kinds.map((kind) => {
      const recipe = madeOf(kind.pool)
      const latest = (byPool.get(kind.pool.name) ?? [])
        .filter((machine) => (machine.madeOf ?? recipe) === recipe && (machine.offered ?? nodeOf.get(machine.nodeId ?? '')))
        .sort((a, b) => (b.joinedAtMs ?? 0) - (a.joinedAtMs ?? 0) || compare(a.id, b.id))
        .slice(0, LATEST)
      return [kind.pool.name, latest.map((machine) => witnessOf(machine, kind, nodeOf.get(machine.nodeId ?? '')))]
    }),
  )
}

function witnessOf(machine: MachineRecord, { pool, node }: Kind, there: PlacementNode | undefined): Witness {
  const { capacity, platform, runtimes } = (there ?? machine.offered) as Offered
  const kept = (key: keyof Offered['capacity']) => pool.capacity[key] * offeredShare(capacity, machine.capacity, pool, key)
  const own = {
    cpuMillis: kept('cpuMillis'),
    memoryBytes: kept('memoryBytes'),
    diskBytes: kept('diskBytes'),
    slots: Math.floor(kept('slots')),
  }
  const engineLabels = there?.engineLabels ?? node.engineLabels
  return {
    node: { ...node, capacity: own, free: own, platform, runtimes, engineLabels },
    joinedAtMs: machine.joinedAtMs ?? 0,
  }
}

function verdictOf(request: PlacementRequest, witnesses: readonly Witness[], hasComing: boolean, nowMs: number): InVain | null {
  const refused: { readonly why: string; readonly atMs: number }[] = []
  for (const { node, joinedAtMs } of witnesses) {
    const why = refusalOf(request, node)
    if (why !== null) refused.push({ why, atMs: joinedAtMs })
  }
  const [latest] = refused
  if (latest === undefined || 2 * refused.length <= witnesses.length) return null
  const settledAtMs = latest.atMs + SETTLE_MS
  if (nowMs < settledAtMs) {
    const text = `its latest machine has just joined, as yet unable to hold it (${latest.why})`
    return { state: 'settling', untilMs: settledAtMs, text }
  }
  if (refused.length < 2) return null
  const pauseMs = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (refused.length - 2))
  const untilMs = latest.atMs + pauseMs
  const text = `${refused.length} of its latest ${witnesses.length} machines turned out not to hold it (${latest.why})`
  if (nowMs < untilMs)
    return { state: 'paused', untilMs, text: `${text}, none is bought within ${pauseMs / 3_600_000} h of the last` }
  if (hasComing) return { state: 'settling', untilMs: nowMs + SETTLE_MS, text: `${text}, one more is on its way` }
  return { state: 'tried', untilMs: nowMs, text: `${text}, one more is tried first` }
}

/** Why the node would not hold the request even if it were empty; null when it would. */
function refusalOf(request: PlacementRequest, node: PlacementNode): string | null {
  return firstStaticRejection(request, node) ?? shortOf(request.charge, node.capacity)
}
