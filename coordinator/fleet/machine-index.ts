/**
 * Machines that may exist and machines that ended, apart: the ended ones are kept for weeks, for what they cost and how long they lived,
 * and no pass shall walk them for anything else. Kept up to date by what changes. Reads the state, writes nothing.
 */
import type { MachineId } from '../../shared/model/identity.ts'
import type { MachineRecord } from '../../shared/model/node.ts'
import type { State } from '../state/state.ts'
import { mayExist } from './machine-states.ts'

export interface MachineIndex {
  /** Those that may exist at their cloud, in the order of the state. The same array until a machine changes, as the other. */
  existing(): readonly MachineRecord[]
  ended(): readonly MachineRecord[]
  stop(): void
}

export function createMachineIndex(state: State): MachineIndex {
  const existing = new Map<MachineId, MachineRecord>()
  const ended = new Map<MachineId, MachineRecord>()
  let listed: { readonly existing: readonly MachineRecord[]; readonly ended: readonly MachineRecord[] } | null = null
  const note = (id: MachineId, machine: MachineRecord | undefined) => {
    const [into, outOf] = machine !== undefined && mayExist(machine) ? [existing, ended] : [ended, existing]
    outOf.delete(id)
    if (machine === undefined) into.delete(id)
    else into.set(id, machine)
  }
  for (const [id, machine] of state.snapshot.all('machine')) note(id, machine)
  const unsubscribe = state.onChange(({ kinds, keys }) => {
    if (!kinds.has('machine')) return
    listed = null
    for (const { kind, key } of keys) if (kind === 'machine') note(key, state.snapshot.get('machine', key))
  })
  const lists = () => {
    listed ??= { existing: [...existing.values()], ended: [...ended.values()] }
    return listed
  }
  return { existing: () => lists().existing, ended: () => lists().ended, stop: unsubscribe }
}
