/** Compare-and-set on one machine record, with the phases' order kept. Shell. */
import { type Clock, sleep } from '../../shared/clock.ts'
import { RetryableError } from '../../shared/errors.ts'
import type { MachineId } from '../../shared/model/identity.ts'
import type { MachineRecord, NodeRecord } from '../../shared/model/node.ts'
import type { Change, Snapshot, State } from '../state/state.ts'
import { mayBecome } from './machine-states.ts'
import { offeredBy } from './plan-in-vain.ts'

const ATTEMPTS = 6
const RETRY_MS = 20

/**
 * Applies `edit` to the machine's present record and stores the result together with what `also` adds. Resolves with the new
 * record, or null when there was nothing to do: the machine is unknown, `edit` gave null, or its phase may not follow.
 * Throws RetryableError when the store does not take it.
 */
export async function changeMachine(
  deps: { readonly state: State; readonly clock: Clock },
  id: MachineId,
  edit: (machine: MachineRecord) => MachineRecord | null,
  also?: (change: Change, after: MachineRecord) => void,
): Promise<MachineRecord | null> {
  for (let attempt = 1; ; attempt += 1) {
    const before = deps.state.snapshot.get('machine', id)
    const edited = before ? edit(before) : null
    const after = edited && withOffer(edited, deps.state.snapshot)
    if (!before || !after || (after.phase !== before.phase && !mayBecome(before.phase, after.phase))) return null
    const change = deps.state.change().put('machine', id, after)
    also?.(change, after)
    const outcome = await deps.state.commit(change)
    if (outcome.kind === 'committed') return after
    if (outcome.kind !== 'conflict' || attempt >= ATTEMPTS)
      throw new RetryableError(`machine ${id} could not be stored: ${outcome.kind}: ${outcome.detail}`)
    await sleep(deps.clock, RETRY_MS * attempt)
  }
}

/** Of one that ends, with what its node turned out to be: the node's record goes with it. */
export function withOffer(machine: MachineRecord, snapshot: Snapshot): MachineRecord {
  const ends = machine.phase === 'terminating' || machine.phase === 'lost'
  const node = ends && machine.offered === undefined ? nodeOfMachine(snapshot, machine) : undefined
  return node ? { ...machine, offered: offeredBy(node) } : machine
}

/** The node that joined from the machine. */
function nodeOfMachine(snapshot: Snapshot, machine: MachineRecord): NodeRecord | undefined {
  if (machine.nodeId !== null) return snapshot.get('node', machine.nodeId)
  for (const node of snapshot.all('node').values()) if (node.machineId === machine.id) return node
  return undefined
}

/** Orders a machine's deletion; its node, if it has one, takes no more instances. Idempotent. */
export function terminateMachine(
  deps: { readonly state: State; readonly clock: Clock },
  id: MachineId,
  options: { readonly reason: string; readonly by: string; readonly nowMs: number },
): Promise<MachineRecord | null> {
  return changeMachine(
    deps,
    id,
    (machine) => (machine.phase === 'terminating' ? null : { ...machine, phase: 'terminating', terminatingAtMs: options.nowMs }),
    (change, machine) => {
      const node = nodeOfMachine(deps.state.snapshot, machine)
      if (node && node.availability !== 'drained')
        change.put('node', node.id, {
          ...node,
          availability: 'drained',
          drain: node.drain ?? {
            reason: options.reason,
            by: options.by,
            startedAtMs: options.nowMs,
            deadlineAtMs: options.nowMs,
            deleteMachine: true,
          },
        })
      change.event({
        actor: options.by,
        type: 'machine.terminating',
        subject: id,
        message: `machine ${id} of pool ${machine.pool} goes: ${options.reason}`,
        severity: 'info',
        data: { pool: machine.pool, ...(node ? { node: node.id } : {}) },
      })
    },
  )
}

/** Removes what a machine that is no more leaves in the state: its node and that node's assignments. */
export function removeNodeOf(change: Change, snapshot: Snapshot, machine: MachineRecord): void {
  const node = nodeOfMachine(snapshot, machine)
  if (!node) return
  change.delete('node', node.id)
  change.delete('assignments', node.id)
}
