/**
 * Why still draining? Moves draining nodes to drained and their machines to deletion. The moving of instances is the services'
 * business; here it is only watched, and forced when the deadline is over. Pure. Times are epoch ms.
 */
import { compare } from '../../shared/compare.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, NodeRecord } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'
import type { InstanceRecord } from '../state/objects.ts'

export type DrainAction =
  /** Nothing is left on it. */
  | { readonly kind: 'drained'; readonly nodeId: NodeId }
  /** The deadline is over: what still runs is told to stop, replaced or not. */
  | { readonly kind: 'force-stop'; readonly nodeId: NodeId }
  /** Its machine goes. */
  | { readonly kind: 'terminate'; readonly nodeId: NodeId; readonly machineId: string; readonly reason: string }

export interface DrainInput {
  readonly nodes: readonly NodeRecord[]
  readonly instancesOn: (nodeId: NodeId) => readonly InstanceRecord[]
  readonly machines: ReadonlyMap<string, MachineRecord>
  /** Pools whose machines are never deleted. */
  readonly staticPools: ReadonlySet<string>
  /** Too many nodes are silent: machines are not deleted, nothing is forced. */
  readonly frozen: boolean
  readonly forceGraceMs: number
  /** An empty node keeps its published ports at least this long after its drain began: callers learn of it and move on. */
  readonly entrySettleMs: number
}

export function planDrain(input: DrainInput, nowMs: number): Plan<DrainAction> {
  const actions: DrainAction[] = []
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  const leaving = input.nodes.filter(({ availability }) => availability === 'draining' || availability === 'drained')
  for (const node of leaving.sort((a, b) => compare(a.id, b.id))) {
    if (node.drain === null) continue
    const instances = input.instancesOn(node.id)
    const machine = node.machineId === null ? undefined : input.machines.get(node.machineId)
    const deletable =
      node.drain.deleteMachine && machine?.phase === 'joined' && !(node.pool !== null && input.staticPools.has(node.pool))
    const overdue = nowMs >= node.drain.deadlineAtMs
    const say = (code: string, text: string) => reasons.push({ subject: node.id, code, text })

    if (instances.length === 0) {
      if (node.availability === 'draining') actions.push({ kind: 'drained', nodeId: node.id })
      if (!deletable) continue
      const settledAtMs = node.drain.startedAtMs + input.entrySettleMs
      if (nowMs < settledAtMs) {
        say('settling', 'is empty; its published ports stay a little for callers that have not moved on')
        wakeAtMs = earliest(wakeAtMs, settledAtMs)
      } else if (input.frozen) say('frozen', 'is drained; its machine stays while too many nodes are silent')
      else actions.push({ kind: 'terminate', nodeId: node.id, machineId: machine.id, reason: node.drain.reason })
      continue
    }
    const running = instances.filter((instance) => instance.goal === 'run')
    if (!overdue) {
      say('waits', `still holds ${instances.length}: ${names(instances)}`)
      wakeAtMs = earliest(wakeAtMs, node.drain.deadlineAtMs)
    } else if (input.frozen) {
      say('frozen', 'is overdue, but nothing is forced while too many nodes are silent')
    } else if (running.length > 0) {
      say('forced', `the deadline is over, ${names(running)} must stop`)
      actions.push({ kind: 'force-stop', nodeId: node.id })
      wakeAtMs = earliest(wakeAtMs, nowMs + input.forceGraceMs)
    } else if (deletable && nowMs >= node.drain.deadlineAtMs + input.forceGraceMs) {
      const reason = `${node.drain.reason}; ${names(instances)} did not stop in time`
      actions.push({ kind: 'terminate', nodeId: node.id, machineId: machine.id, reason })
    } else {
      say('stopping', `the deadline is over, waits until ${names(instances)} stopped`)
      if (deletable) wakeAtMs = earliest(wakeAtMs, node.drain.deadlineAtMs + input.forceGraceMs)
    }
  }
  return { actions, reasons, wakeAtMs }
}

function names(instances: readonly InstanceRecord[]): string {
  const shown = instances.slice(0, 3).map((instance) => instance.id)
  return instances.length > 3 ? `${shown.join(', ')} and ${instances.length - 3} more` : shown.join(', ')
}
