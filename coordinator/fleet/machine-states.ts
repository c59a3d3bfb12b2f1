/** The life of a machine: which phase may follow which. Phases only move forward; a new attempt is a new machine. Pure. */
import type { MachinePhase, MachineRecord } from '../../shared/model/node.ts'

/**
 * requested: intent stored, the cloud perhaps asked · booting: the cloud confirmed it · joining: the VM runs, its agent has not
 * joined · joined · terminating: deletion ordered, to be confirmed · gone: confirmed absent · lost: vanished unordered.
 */
export const MACHINE_TRANSITIONS: Readonly<Record<MachinePhase, readonly MachinePhase[]>> = {
  requested: ['booting', 'joining', 'joined', 'terminating', 'lost'],
  booting: ['joining', 'joined', 'terminating', 'lost'],
  joining: ['joined', 'terminating', 'lost'],
  joined: ['terminating', 'lost'],
  terminating: ['gone'],
  gone: [],
  lost: [],
}

export function mayBecome(from: MachinePhase, to: MachinePhase): boolean {
  return MACHINE_TRANSITIONS[from].includes(to)
}

/** Ordered and not yet a node: counts as capacity, so that one burst buys once. */
export function isComing(machine: MachineRecord): boolean {
  return machine.phase === 'requested' || machine.phase === 'booting' || machine.phase === 'joining'
}

/** Neither ended nor ending. */
export function isAlive(machine: MachineRecord): boolean {
  return isComing(machine) || machine.phase === 'joined'
}

/** May exist at the cloud, and be paid for. */
export function mayExist(machine: MachineRecord): boolean {
  return machine.phase !== 'gone' && machine.phase !== 'lost'
}

/** Clouds take a minute or two. */
export const DELETE_STUCK_MS = 600_000

/** Ordered to be deleted so long ago that its cloud seems not to do it. Nothing waits for it any more; it is still asked. */
export function isDeleteStuck(machine: MachineRecord, nowMs: number): boolean {
  return machine.phase === 'terminating' && nowMs - (machine.terminatingAtMs ?? nowMs) > DELETE_STUCK_MS
}
