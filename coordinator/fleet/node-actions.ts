/** What people and the fleet do to nodes: cordon, drain, remove. Each is one commit, idempotent, and leaves an event. */
import type { Clock } from '../../shared/clock.ts'
import { ConflictError, NotFoundError, UnavailableError } from '../../shared/errors.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import { drainWaits, drainWaitsText } from '../services/drain-waits.ts'
import type { State } from '../state/state.ts'
import { INTERRUPTED_BY } from './drain-reasons.ts'
import { mayBecome } from './machine-states.ts'
import { withOffer } from './machine-updates.ts'

export interface NodeActionDeps {
  readonly state: State
  /** Steady time, where deadlines are made: see steady-time.ts. */
  readonly clock: Pick<Clock, 'now'>
}

export interface DrainOptions {
  /** `operator:<name>` or `fleet`. */
  readonly by: string
  readonly reason: string
  /** Whether its machine goes once it is empty. Ignored for nodes without a machine. */
  readonly deleteMachine: boolean
  /** From now; default 15 min. After it what is left is stopped. */
  readonly deadlineMs?: number
}

const DEFAULT_DEADLINE_MS = 900_000
const MAX_ATTEMPTS = 8

/** Somebody else changed the node between our look and our commit; nothing was done. */
export class ChangedMeanwhileError extends ConflictError {}

/**
 * For what a person asks: done upon whatever the node is by now, when the fleet or another person was faster (8 tries). Not for
 * decisions of the fleet: those rest on what it saw, and are made anew.
 */
export async function evenIfChanged<T>(act: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await act()
    } catch (error) {
      if (!(error instanceof ChangedMeanwhileError) || attempt === MAX_ATTEMPTS) throw error
    }
  }
}

/** Moves everything off the node. A node that drains already gets the new deadline, reason and fate. Throws NotFoundError. */
export function drainNode(deps: NodeActionDeps, nodeId: NodeId, options: DrainOptions): Promise<NodeRecord> {
  const nowMs = deps.clock.now()
  const waits = drainWaitsText(drainWaits(deps.state.snapshot, nodeId))
  const message = `${nodeId} drains: ${options.reason}${waits === '' ? '' : `; ${waits}`}`
  return editNode(deps, nodeId, options.by, 'node.draining', message, (node) => ({
    ...node,
    availability: node.availability === 'drained' ? 'drained' : 'draining',
    drain: {
      reason: options.reason,
      by: options.by,
      startedAtMs: node.drain?.startedAtMs ?? nowMs,
      deadlineAtMs: nowMs + (options.deadlineMs ?? DEFAULT_DEADLINE_MS),
      deleteMachine: options.deleteMachine,
    },
  }))
}

/**
 * The cloud takes the machine away at `deadlineAtMs` (spot interruption): the node drains with that deadline, which never moves
 * back when the notice comes again, and is not taken back. What is left at `forceAtMs` is stopped. Throws NotFoundError.
 */
export function interruptNode(
  deps: NodeActionDeps,
  nodeId: NodeId,
  deadlineAtMs: number,
  by: string,
  forceAtMs = deadlineAtMs,
): Promise<NodeRecord> {
  const nowMs = deps.clock.now()
  const inS = Math.max(0, Math.round((deadlineAtMs - nowMs) / 1000))
  const message = `${nodeId} is interrupted: the cloud takes its machine away in ${inS} s (told by ${by})`
  return editNode(deps, nodeId, by, 'node.interrupted', message, (node) => {
    const { drain } = node
    if (drain?.by === INTERRUPTED_BY && drain.deadlineAtMs <= forceAtMs) return node
    return {
      ...node,
      availability: node.availability === 'drained' ? 'drained' : 'draining',
      drain: {
        reason: 'interrupted: the cloud takes its machine away',
        by: INTERRUPTED_BY,
        startedAtMs: drain?.startedAtMs ?? nowMs,
        deadlineAtMs: Math.min(forceAtMs, drain?.deadlineAtMs ?? forceAtMs),
        deleteMachine: true,
      },
    }
  })
}

/** No new instances; what runs stays. A node that drains goes on draining. */
export function cordonNode(deps: NodeActionDeps, nodeId: NodeId, by: string): Promise<NodeRecord> {
  return editNode(deps, nodeId, by, 'node.cordoned', `${nodeId} takes no new instances`, (node) =>
    node.availability === 'active' ? { ...node, availability: 'cordoned' } : node,
  )
}

/** Takes instances again; ends a drain. Throws ConflictError when its machine is being deleted already. */
export function uncordonNode(deps: NodeActionDeps, nodeId: NodeId, by: string, reason = 'uncordoned'): Promise<NodeRecord> {
  return editNode(deps, nodeId, by, 'node.activated', `${nodeId} takes instances again: ${reason}`, (node) => {
    const machine = node.machineId === null ? undefined : deps.state.snapshot.get('machine', node.machineId)
    if (machine?.phase === 'terminating') throw new ConflictError(`the machine of ${nodeId} is being deleted already`)
    return node.availability === 'active' ? node : { ...node, availability: 'active', drain: null }
  })
}

/**
 * Forgets a node that is empty, or (with `force`) whatever it holds; its machine, if any, is deleted (unless its
 * pool is static). Its agent must join anew.
 * Throws NotFoundError, and ConflictError for a node that holds instances.
 */
export async function removeNode(
  deps: NodeActionDeps,
  nodeId: NodeId,
  options: { readonly by: string; readonly force: boolean },
): Promise<void> {
  const { state, clock } = deps
  const node = state.snapshot.get('node', nodeId)
  if (!node) throw new NotFoundError(`there is no node ${nodeId}`)
  const held = state.snapshot.get('assignments', nodeId)?.instances.length ?? 0
  if (held > 0 && !options.force) throw new ConflictError(`${nodeId} still holds ${held} instances: drain it first, or force it`)
  const change = state.change().delete('node', nodeId).delete('assignments', nodeId)
  const machine = node.machineId === null ? undefined : state.snapshot.get('machine', node.machineId)
  const isStatic = machine !== undefined && state.snapshot.get('pool', machine.pool)?.static === true
  if (machine && !isStatic && mayBecome(machine.phase, 'terminating'))
    change.put(
      'machine',
      machine.id,
      withOffer({ ...machine, nodeId, phase: 'terminating', terminatingAtMs: clock.now() }, state.snapshot),
    )
  change.event({
    actor: options.by,
    type: 'node.removed',
    subject: nodeId,
    message: `${nodeId} was removed${held > 0 ? ` with ${held} instances on it` : ''}`,
    severity: held > 0 ? 'warning' : 'info',
  })
  await commitOrThrow(deps, change)
}

async function editNode(
  deps: NodeActionDeps,
  nodeId: NodeId,
  by: string,
  type: string,
  message: string,
  edit: (node: NodeRecord) => NodeRecord,
): Promise<NodeRecord> {
  const before = deps.state.snapshot.get('node', nodeId)
  if (!before) throw new NotFoundError(`there is no node ${nodeId}`)
  const after = edit(before)
  if (after === before) return before
  const change = deps.state.change().put('node', nodeId, after)
  change.event({
    actor: by,
    type,
    subject: nodeId,
    message,
    severity: 'info',
    data: { before: before.availability, after: after.availability },
  })
  await commitOrThrow(deps, change)
  return after
}

async function commitOrThrow(deps: NodeActionDeps, change: ReturnType<State['change']>): Promise<void> {
  const outcome = await deps.state.commit(change)
  if (outcome.kind === 'committed') return
  if (outcome.kind === 'conflict') throw new ChangedMeanwhileError(`changed meanwhile, try again: ${outcome.detail}`)
  throw new UnavailableError(`could not be stored: ${outcome.kind}: ${outcome.detail}`)
}
