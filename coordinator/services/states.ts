/**
 * Which state may follow which. One table per machine; docs/states.md says the same in words and a test compares them.
 * Whoever reads a state from outside checks it here before believing it.
 */
import type { Availability, MachinePhase } from '../../shared/model/node.ts'
import type { InstancePhase } from '../../shared/model/observation.ts'
import type { RolloutState } from '../state/objects.ts'

export type Transitions<S extends string> = Readonly<Record<S, readonly S[]>>

/**
 * Monotonic. Agents may leave out phases that took no time, so any later phase may follow. A restart in place keeps the
 * phase reached: `restarts`, `healthy` and `crashLooping` tell of it.
 */
export const INSTANCE_TRANSITIONS: Transitions<InstancePhase> = {
  pending: ['placed', 'pulling', 'starting', 'warming', 'ready', 'draining', 'stopped', 'failed', 'lost'],
  placed: ['pulling', 'starting', 'warming', 'ready', 'draining', 'stopped', 'failed', 'lost'],
  pulling: ['starting', 'warming', 'ready', 'draining', 'stopped', 'failed', 'lost'],
  starting: ['warming', 'ready', 'draining', 'stopped', 'failed', 'lost'],
  warming: ['ready', 'draining', 'stopped', 'failed', 'lost'],
  ready: ['draining', 'stopped', 'failed', 'lost'],
  draining: ['stopped', 'failed', 'lost'],
  stopped: [],
  // Given up, and later told to stop: its agent clears it away and says so.
  failed: ['stopped'],
  lost: [],
}

/** Monotonic. `lost` means that the VM vanished without our order; a lost one that is listed again is terminated. */
export const MACHINE_TRANSITIONS: Transitions<MachinePhase> = {
  requested: ['booting', 'joining', 'joined', 'terminating', 'gone', 'lost'],
  booting: ['joining', 'joined', 'terminating', 'gone', 'lost'],
  joining: ['joined', 'terminating', 'gone', 'lost'],
  joined: ['terminating', 'gone', 'lost'],
  terminating: ['gone'],
  lost: ['terminating', 'gone'],
  gone: [],
}

/** Reversible: demand takes a node back at any time before its machine is deleted. */
export const AVAILABILITY_TRANSITIONS: Transitions<Availability> = {
  active: ['cordoned', 'draining'],
  cordoned: ['active', 'draining'],
  draining: ['active', 'cordoned', 'drained'],
  drained: ['active', 'cordoned', 'draining'],
}

/** Of one rollout (one `toRevision`). A later revision begins a rollout of its own, whatever became of this one. */
export const ROLLOUT_TRANSITIONS: Transitions<RolloutState['phase']> = {
  progressing: ['monitoring', 'completed', 'paused'],
  monitoring: ['completed', 'paused'],
  'rolling-back': ['completed', 'failed'],
  paused: [],
  failed: [],
  completed: [],
}

/** Whether `to` may follow `from`; staying is always allowed. */
export function mayFollow<S extends string>(table: Transitions<S>, from: S, to: S): boolean {
  return from === to || table[from].includes(to)
}
