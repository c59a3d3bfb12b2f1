/**
 * What the clouds list against what we know. Presence is believed at once; absence only after two complete lists and some
 * minutes, from a list that does not contradict what we see ourselves, and never just after a take-over. Pure. Epoch ms.
 */
import { compare } from '../../shared/compare.ts'
import type { MachineId, NodeId } from '../../shared/model/identity.ts'
import type { Liveness, MachineRecord, NodeRecord } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import type { CloudMachine } from '../providers/provider.ts'
import type { FleetConfig } from './config.ts'
import { DELETE_STUCK_MS, isComing, isDeleteStuck, mayExist } from './machine-states.ts'
import { type Announcement, type Interruption, noticesOf } from './plan-notices.ts'

export interface CloudList {
  readonly provider: string
  readonly complete: boolean
  readonly machines: readonly CloudMachine[]
}

export type ReapAction =
  /** The cloud has it (the reply to `create` may have been lost). */
  | { readonly kind: 'confirm'; readonly machineId: MachineId; readonly providerId: string; readonly running: boolean }
  | { readonly kind: 'lost'; readonly machineId: MachineId; readonly reason: string }
  | { readonly kind: 'terminate'; readonly machineId: MachineId; readonly reason: string; readonly poolRests: boolean }
  /** A VM whose agent is with us though its record is not. */
  | {
      readonly kind: 'adopt'
      readonly machineId: MachineId
      readonly provider: string
      readonly cloud: CloudMachine
      readonly nodeId: NodeId
    }
  /** The cloud announces that it takes the machine away (spot interruption). */
  | Interruption
  | { readonly kind: 'delete-orphan'; readonly provider: string; readonly cloud: CloudMachine }

/** What must be remembered from pass to pass; starts empty with each coordinator. */
export interface ReapMemory {
  readonly missing: ReadonlyMap<MachineId, { readonly sinceMs: number; readonly lists: number }>
  /** provider and VM id → first seen. */
  readonly orphans: ReadonlyMap<string, number>
}

export const EMPTY_REAP_MEMORY: ReapMemory = { missing: new Map(), orphans: new Map() }

export interface ReapInput {
  readonly clusterId: string
  /** Lists that came since the last pass, at most one per provider. */
  readonly lists: readonly CloudList[]
  readonly machines: readonly MachineRecord[]
  readonly nodes: readonly NodeRecord[]
  readonly livenessOf: (nodeId: NodeId) => Liveness
  /** Wall time less the steady time of decisions: deadlines of clouds are wall time. */
  readonly wallAheadMs?: number
  /** When this coordinator began to act; machines could not join before. */
  readonly startedAtMs: number
  readonly frozen: boolean
  readonly config: Pick<FleetConfig, 'joinDeadlineMs' | 'orphanGraceMs' | 'missingMs' | 'takeoverMs'>
}

export function planReap(
  input: ReapInput,
  memory: ReapMemory,
  nowMs: number,
): Plan<ReapAction> & { readonly memory: ReapMemory } {
  const { config, machines } = input
  const actions: ReapAction[] = []
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  // Without a list there is only to be seen who is overdue.
  if (input.lists.length === 0 && !machines.some(isComing)) return { actions, reasons, wakeAtMs, memory }
  const missing = new Map(memory.missing)
  const orphans = new Map(memory.orphans)
  const mayDelete = !input.frozen && nowMs >= input.startedAtMs + config.takeoverMs
  const nodeOf = new Map(input.nodes.flatMap((node) => (node.machineId === null ? [] : [[node.machineId, node] as const])))
  const sorted = machines.filter(mayExist).sort((a, b) => compare(a.id, b.id))

  // Never joined: no list is needed to see that.
  const overdue = new Set<MachineId>()
  for (const machine of sorted) {
    if (!isComing(machine) || nodeOf.has(machine.id)) continue
    // An order that lies ahead of us was written before the wall clock was set back: it counts from our start.
    const orderedMs = machine.requestedAtMs > nowMs ? input.startedAtMs : machine.requestedAtMs
    const deadlineMs = Math.max(orderedMs, input.startedAtMs) + config.joinDeadlineMs
    if (nowMs < deadlineMs) {
      wakeAtMs = earliest(wakeAtMs, deadlineMs)
      continue
    }
    overdue.add(machine.id)
    const reason = `never joined in ${Math.round(config.joinDeadlineMs / 1000)} s${machine.lastError ? ` (${machine.lastError})` : ''}`
    actions.push({ kind: 'terminate', machineId: machine.id, reason, poolRests: true })
  }

  for (const machine of sorted) {
    if (!isDeleteStuck(machine, nowMs)) continue
    const why = machine.lastError === null ? '' : `: ${machine.lastError}`
    const text = `the cloud has not deleted ${machine.name} in ${DELETE_STUCK_MS / 60_000} min, and it is paid for still${why}`
    reasons.push({ subject: machine.id, code: 'delete-stuck', text })
  }

  for (const list of input.lists) {
    const ours = sorted.filter((machine) => machine.provider === list.provider)
    const find = finderIn(list.machines)
    const claimed = new Set<CloudMachine>()
    const announced: Announcement[] = []
    const absent: MachineRecord[] = []
    for (const machine of ours) {
      const found = find(machine)
      if (!found) {
        absent.push(machine)
        continue
      }
      claimed.add(found)
      missing.delete(machine.id)
      if (overdue.has(machine.id)) continue
      const node = nodeOf.get(machine.id)
      const endsAtMs = found.interruptionAtMs ?? null
      if (endsAtMs !== null && node && machine.phase === 'joined')
        announced.push({ machineId: machine.id, node, endsAtMs: endsAtMs - (input.wallAheadMs ?? 0) })
      const running = found.state === 'running'
      const news = machine.providerId === null || machine.phase === 'requested' || (machine.phase === 'booting' && running)
      if (news && machine.phase !== 'terminating')
        actions.push({ kind: 'confirm', machineId: machine.id, providerId: found.id, running })
    }

    const joined = ours.filter((machine) => machine.phase === 'joined').length
    const notices = noticesOf(list.provider, announced, joined, nowMs)
    actions.push(...notices.actions)
    reasons.push(...notices.reasons)

    const distrust = distrustReason(list, ours, absent, nodeOf, input.livenessOf)
    if (distrust !== null) reasons.push({ subject: list.provider, code: 'list-distrusted', text: distrust })
    else
      for (const machine of absent) {
        // A request is simply repeated, and a deletion is confirmed by the cloud's own "not found".
        if (machine.phase === 'requested' || machine.phase === 'terminating' || overdue.has(machine.id)) continue
        const before = missing.get(machine.id)
        const seen = { sinceMs: before?.sinceMs ?? nowMs, lists: (before?.lists ?? 0) + 1 }
        missing.set(machine.id, seen)
        const node = nodeOf.get(machine.id)
        const silent = node === undefined || input.livenessOf(node.id) === 'lost'
        if (seen.lists < 2 || nowMs - seen.sinceMs < config.missingMs || !silent || !mayDelete) {
          reasons.push({ subject: machine.id, code: 'missing', text: `is not listed by ${list.provider}, which may be late` })
          continue
        }
        missing.delete(machine.id)
        const reason = `${list.provider} no longer lists it`
        if (node) actions.push({ kind: 'lost', machineId: machine.id, reason })
        else actions.push({ kind: 'terminate', machineId: machine.id, reason, poolRests: false })
      }

    const present = new Set<string>()
    for (const cloud of list.machines) {
      if (claimed.has(cloud) || cloud.state === 'stopping') continue
      const key = `${list.provider}\n${cloud.id}`
      present.add(key)
      const prefix = `${input.clusterId}-`
      if (!cloud.name.startsWith(prefix)) {
        reasons.push({
          subject: cloud.id,
          code: 'foreign',
          text: `${list.provider} lists ${cloud.name}, which is not named as ours: left alone`,
        })
        continue
      }
      const machineId = cloud.name.slice(prefix.length)
      const node = nodeOf.get(machineId)
      if (node && !machines.some((machine) => machine.id === machineId) && input.livenessOf(node.id) === 'live') {
        actions.push({ kind: 'adopt', machineId, provider: list.provider, cloud, nodeId: node.id })
        continue
      }
      const sinceMs = orphans.get(key) ?? nowMs
      orphans.set(key, sinceMs)
      if (mayDelete && nowMs - sinceMs >= config.orphanGraceMs)
        actions.push({ kind: 'delete-orphan', provider: list.provider, cloud })
      else
        reasons.push({
          subject: cloud.id,
          code: 'unknown-vm',
          text: `${cloud.name} carries our tag but is unknown: deleted after a grace period`,
        })
    }
    if (list.complete)
      for (const key of orphans.keys()) if (key.startsWith(`${list.provider}\n`) && !present.has(key)) orphans.delete(key)
  }

  const known = new Set(sorted.map((machine) => machine.id))
  for (const id of missing.keys()) if (!known.has(id)) missing.delete(id)
  return { actions, reasons, wakeAtMs, memory: { missing, orphans } }
}

/** By the provider's id where we know it, else by the name that we gave it. */
function finderIn(listed: readonly CloudMachine[]): (machine: MachineRecord) => CloudMachine | undefined {
  const byId = new Map<string, CloudMachine>()
  const byName = new Map<string, CloudMachine>()
  for (const cloud of listed) {
    if (!byId.has(cloud.id)) byId.set(cloud.id, cloud)
    const namesake = byName.get(cloud.name)
    if (namesake === undefined || compare(cloud.id, namesake.id) < 0) byName.set(cloud.name, cloud)
  }
  return ({ providerId, name }) => (providerId === null ? undefined : byId.get(providerId)) ?? byName.get(name)
}

/** Why absence from this list means nothing; null when it does. */
function distrustReason(
  list: CloudList,
  ours: readonly MachineRecord[],
  absent: readonly MachineRecord[],
  nodeOf: ReadonlyMap<MachineId, NodeRecord>,
  livenessOf: (nodeId: NodeId) => Liveness,
): string | null {
  if (!list.complete) return `the list of ${list.provider} is incomplete: nothing is concluded from absence`
  const believed = ours.filter((machine) => machine.phase !== 'requested' && machine.phase !== 'terminating')
  const liveness = (machine: MachineRecord) => {
    const node = nodeOf.get(machine.id)
    return node === undefined ? null : livenessOf(node.id)
  }
  const contradicting = absent.find((machine) => liveness(machine) === 'live')
  if (contradicting) return `the list of ${list.provider} omits ${contradicting.id}, whose agent is connected: it is not believed`
  if (list.machines.length === 0 && believed.length >= 2 && !believed.every((machine) => liveness(machine) === 'lost'))
    return `the list of ${list.provider} is suddenly empty: it is not believed`
  return null
}
