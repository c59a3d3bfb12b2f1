/**
 * The watchdog's loop: reads the lease, looks what of the expired ones runs, stops it. It lives as long as there is a lease, also
 * when nothing of it runs any more: what an engine that hung was told to start may begin late.
 */
import { type Clock, sleep } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { FenceHands } from '../runtime/fence-hands.ts'
import { decodeLease, type Lease, type LeasedInstance } from './lease.ts'
import type { LeaseFile } from './lease-file.ts'
import { expired, type FenceAction, planFence } from './plan-fence.ts'

export interface FenceDeps {
  readonly lease: Pick<LeaseFile, 'read'>
  readonly hands: Readonly<Partial<Record<LeasedInstance['runtime'], FenceHands>>>
  readonly bootId: string
  /** The host's steady clock, in ms. */
  steadyMs(): number
  readonly clock: Clock
  readonly logger: Logger
  /** Another watchdog has taken over, or nobody wants this one any more. */
  isOver(): boolean
}

/** How late a lease that was renewed, shortened or taken away is noticed. */
export const LOOK_MS = 1_000

/** Watches until nothing is left to watch, or it is over. */
export async function runFence(deps: FenceDeps): Promise<void> {
  const { clock, logger, hands } = deps
  const askedMs = new Map<string, number>()
  let lease: Lease | null = null
  while (!deps.isOver()) {
    lease = readLease(deps, lease)
    const nowMs = deps.steadyMs()
    const due = lease === null ? [] : expired(lease, nowMs)
    const running = await runningOf(due, hands, logger)
    for (const id of askedMs.keys()) if (!running.has(id)) askedMs.delete(id)
    const plan = planFence({ lease, running, askedMs }, nowMs)
    for (const action of plan.actions) {
      if (action.kind === 'exit') return
      if (action.kind === 'stop') askedMs.set(action.id, nowMs)
      act(action, deps)
    }
    const wakeMs = plan.wakeAtMs === null ? LOOK_MS : Math.min(LOOK_MS, plan.wakeAtMs - deps.steadyMs())
    await sleep(clock, Math.max(1, wakeMs))
  }
}

/** One that was read while it was written is read again at the next look. */
function readLease({ lease, bootId, logger }: FenceDeps, before: Lease | null): Lease | null {
  try {
    const text = lease.read()
    if (text === null) return null
    const found = decodeLease(text)
    return found === null ? before : found.bootId === bootId ? found : null
  } catch (error) {
    logger.warn('the lease cannot be read, the one before stands', { error: messageOf(error) })
    return before
  }
}

async function runningOf(
  due: readonly LeasedInstance[],
  hands: FenceDeps['hands'],
  logger: Logger,
): Promise<ReadonlySet<string>> {
  const running = new Set<string>()
  const look = async (leased: LeasedInstance, id: string) => {
    try {
      if (await hands[leased.runtime]?.runs(id)) running.add(id)
    } catch (error) {
      // Unknown is treated as running: a stop and a kill of nothing do no harm.
      logger.warn('it cannot be seen whether it runs', { instance: leased.instance, error: messageOf(error) })
      running.add(id)
    }
  }
  await Promise.all(due.flatMap((leased) => leased.ids.map((id) => look(leased, id))))
  return running
}

function act(action: Exclude<FenceAction, { kind: 'exit' }>, { hands, logger }: FenceDeps): void {
  const { instance, runtime, id } = action
  const hand = hands[runtime]
  if (action.kind === 'kill') {
    logger.warn('a strict singleton is killed, its stop did not end it', { instance, id })
    hand?.kill(id)
    return
  }
  logger.warn('a strict singleton is stopped: no coordinator was heard in time, and its agent did not stop it', { instance, id })
  hand?.stop(id, action.graceMs).catch((error: unknown) => {
    logger.warn('a strict singleton could not be stopped softly', { instance, id, error: messageOf(error) })
  })
}
