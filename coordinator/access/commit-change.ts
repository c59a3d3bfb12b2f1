/** Commits a change that is built anew from the present snapshot whenever somebody else was faster. */
import { ConflictError, RubatoError, UnavailableError } from '../../shared/errors.ts'
import type { Change, Snapshot, State } from '../state/state.ts'
import type { CommitOutcome } from '../state/store.ts'

const MAX_ATTEMPTS = 8

/**
 * Builds and commits a change; on a conflict it builds again from the new snapshot, at most 8 times. `build` must read and put
 * without waiting in between, and may throw to refuse. Resolves with what `build` returned once that is durable. Throws
 * UnavailableError (a full disk: `storage-full`) when the store does not take it (nothing may be acted on then), ConflictError when others kept winning.
 */
export async function commitChange<T>(state: State, build: (change: Change, snapshot: Snapshot) => T): Promise<T> {
  let detail = ''
  for (let attempt = 0; attempt < MAX_ATTEMPTS; attempt += 1) {
    const change = state.change()
    const result = build(change, state.snapshot)
    const outcome = await state.commit(change)
    switch (outcome.kind) {
      case 'committed':
        return result
      case 'conflict':
        detail = outcome.detail
        continue
      case 'tooLarge':
        throw new RubatoError('too-large', `The change does not fit into one commit: ${outcome.detail}`)
      case 'notLeader':
      case 'unavailable':
        throw notStored(outcome)
    }
  }
  throw new ConflictError(`Others changed the same objects ${MAX_ATTEMPTS} times in a row: ${detail}`)
}

/** What a commit that was not taken is to the caller: a full disk is said as such (fault row 33). */
export function notStored(outcome: Extract<CommitOutcome, { kind: 'unavailable' | 'notLeader' }>): RubatoError {
  if (outcome.kind === 'unavailable' && outcome.full)
    return new RubatoError('storage-full', 'The change was not stored: the disk of the coordinator is full.')
  return new UnavailableError(`The change was not stored: ${outcome.detail}`)
}

/** Runs tasks one after the other, each after the one before it ended (well or not). */
export function createTurnstile(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve()
  return (task) => {
    const turn = last.then(task, task)
    last = turn.catch(() => undefined)
    return turn
  }
}
