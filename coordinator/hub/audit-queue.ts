/** Events of the hub, written in batches beside everything else: no frame waits for the disk. */
import type { Logger } from '../../shared/logger.ts'
import { messageOf } from '../../shared/errors.ts'
import type { EventDraft } from '../../shared/model/event.ts'
import type { State } from '../state/state.ts'

const BATCH = 50
/** More than this waiting means that the store is away; the newest are dropped and counted. */
const MAX_WAITING = 10_000

export interface AuditQueue {
  add(draft: EventDraft): void
  readonly dropped: number
  /** Resolves when all that was added is written or given up. */
  idle(): Promise<void>
}

export function createAuditQueue(state: State, logger: Logger): AuditQueue {
  const waiting: EventDraft[] = []
  let running: Promise<void> | null = null
  let dropped = 0
  const run = async () => {
    while (waiting.length > 0) {
      const batch = waiting.splice(0, BATCH)
      const change = state.change()
      for (const draft of batch) change.event(draft)
      try {
        const outcome = await state.commit(change)
        if (outcome.kind === 'committed') continue
        dropped += batch.length
        logger.error('events of the hub could not be kept', { outcome: outcome.kind, count: batch.length })
      } catch (error) {
        dropped += batch.length
        logger.error('events of the hub could not be kept', { error: messageOf(error), count: batch.length })
      }
    }
    running = null
  }
  return {
    add(draft) {
      if (waiting.length >= MAX_WAITING) dropped += 1
      else waiting.push(draft)
      running ??= Promise.resolve().then(run)
    },
    get dropped() {
      return dropped
    },
    async idle() {
      await running
    },
  }
}
