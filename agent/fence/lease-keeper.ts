/**
 * The agent's side of the fence (ADR 0022): says in the lease which strict singletons may run here and since when there was
 * contact, and sees to it that a watchdog lives that reads it. Invariant: a strict singleton is not started before it stands in
 * the lease and the watchdog runs; so whatever happens to the agent, it is stopped in time.
 */
import type { Clock } from '../../shared/clock.ts'
import { messageOf, UnavailableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop } from '../../shared/loop.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import { decodeLease, encodeLease, type Lease } from './lease.ts'
import type { LeaseFile } from './lease-file.ts'
import { type KeptInstance, planLease, type StrictAssignment } from './plan-lease.ts'

/** The process that stops what the agent cannot. */
export interface Watchdog {
  isAlive(): boolean
  /** Starts one, which takes the place of any other. Rejects when it does not come up. */
  start(): Promise<void>
}

/** What the fence needs of the host. */
export interface FenceHost {
  readonly lease: LeaseFile
  readonly watchdog: Watchdog
  readonly bootId: string
  /** The host's steady clock in ms: the same for every process of this boot, counting on while the host is suspended. */
  steadyMs(): number
}

export interface LeaseKeeperDeps {
  readonly host: FenceHost
  readonly clock: Clock
  readonly logger: Logger
  /** Strict singletons that this node shall have; null: not known yet. */
  assigned(): readonly StrictAssignment[] | null
  /** Containers that exist here; null: an engine does not answer. */
  present(): readonly { readonly instance: InstanceId; readonly id: string }[] | null
  /** Monotonic ms of the last contact in this life of the agent; null: none yet. */
  contactMs(): number | null
}

export interface LeaseKeeper {
  /** The last contact, of an earlier life of the agent too, in monotonic ms of this one's clock; null: none since the boot. */
  contactMs(): number | null
  /** Resolves when the container may be started: it stands in the lease and a watchdog runs. Else rejects with UnavailableError. */
  hold(strict: StrictAssignment, id: string): Promise<void>
  /** Looks at once: what is assigned may have changed. */
  poke(): void
  start(): void
  stop(): Promise<void>
}

/** A watchdog that died is missed after this long at most. */
const RENEW_MS = 1_000
/** The host was suspended for no less: shorter gaps between the clocks are those of reading them. */
const LEAST_SLEEP_MS = 100
/** Between attempts to start one. */
const START_AGAIN_MS = 5_000

export function createLeaseKeeper(deps: LeaseKeeperDeps): LeaseKeeper {
  const { host, clock, logger } = deps
  const { lease: file, watchdog, bootId } = host
  const earlier = readEarlier(host, logger)
  /** Steady ms at which this agent began. */
  const startedMs = earlier?.startedMs ?? host.steadyMs()
  let kept: ReadonlyMap<InstanceId, KeptInstance> = keptOf(earlier, host.steadyMs())
  let written: string | null = null
  let isRenewed = true
  /** A watchdog of this life's own program runs. */
  let isOurs = false
  let starting: Promise<void> | null = null
  let startNotBeforeMs = Number.NEGATIVE_INFINITY

  /** By how much the host's clock is ahead of this process's, which stands still while the host is suspended. */
  let aheadMs = host.steadyMs() - clock.monotonicMs()
  /** By how much it was, for what happened until then; oldest first. */
  let sleeps: readonly { readonly untilMs: number; readonly aheadMs: number }[] = []
  const noteSleep = () => {
    // In this order: what comes in between must not look like sleep, or contact would seem to be still to come.
    const steadyMs = host.steadyMs()
    const nowMs = clock.monotonicMs()
    const nowAheadMs = steadyMs - nowMs
    if (nowAheadMs - aheadMs < LEAST_SLEEP_MS) return
    sleeps = [...sleeps, { untilMs: nowMs, aheadMs }]
    aheadMs = nowAheadMs
  }
  const contactMs = () => {
    noteSleep()
    const own = deps.contactMs()
    if (own === null) return earlier?.contactMs ?? null
    sleeps = sleeps.filter(({ untilMs }) => untilMs >= own)
    return own + (sleeps[0]?.aheadMs ?? aheadMs)
  }

  const write = () => {
    if (kept.size === 0) {
      if (written !== null || earlier !== null) file.remove()
      written = null
      // It ends by itself.
      isOurs = false
      return
    }
    const instances = [...kept.values()].map(({ instance, runtime, afterMs, stopGraceMs, ids }) => ({
      instance,
      runtime,
      afterMs,
      stopGraceMs,
      ids: [...ids.keys()].sort(),
    }))
    const text = encodeLease({ bootId, startedMs, contactMs: contactMs(), instances })
    if (text === written) return
    file.write(text)
    written = text
  }

  /** After the lease was written: a watchdog that found none may be about to end, and looks again before it does. */
  const ensureWatchdog = async () => {
    if (kept.size === 0 || (isOurs && watchdog.isAlive())) return
    if (isOurs) logger.warn('the watchdog of strict singletons has ended, another one is started')
    starting ??= watchdog
      .start()
      .then(() => {
        isOurs = true
      })
      .finally(() => {
        starting = null
      })
    await starting
  }

  const loop = createLoop({
    name: 'lease',
    clock,
    logger,
    async run() {
      const assigned = deps.assigned()
      // Until the desired set is known what the lease says stands, as long as its containers are there and for `LINGER_MS` after that.
      if (assigned !== null || kept.size > 0)
        kept = planLease({ assigned: assigned ?? [], present: deps.present(), kept }, host.steadyMs())
      try {
        write()
        if (!isRenewed) logger.info('the lease of strict singletons is renewed again')
        isRenewed = true
      } catch (error) {
        if (isRenewed)
          logger.error('the lease of strict singletons cannot be renewed: they will be stopped', { error: messageOf(error) })
        isRenewed = false
      }
      if (clock.monotonicMs() >= startNotBeforeMs)
        try {
          await ensureWatchdog()
        } catch (error) {
          startNotBeforeMs = clock.monotonicMs() + START_AGAIN_MS
          logger.error('strict singletons have no watchdog', { error: messageOf(error) })
        }
      return kept.size === 0 ? null : clock.now() + RENEW_MS
    },
  })

  return {
    contactMs() {
      const atMs = contactMs()
      return atMs === null ? null : atMs - aheadMs
    },
    async hold(strict, id) {
      const ids = new Map(kept.get(strict.instance)?.ids).set(id, host.steadyMs())
      kept = new Map(kept).set(strict.instance, { ...strict, neededMs: host.steadyMs(), ids })
      try {
        write()
        await ensureWatchdog()
      } catch (error) {
        throw new UnavailableError(`a strict singleton is not started without its watchdog: ${messageOf(error)}`)
      }
      loop.poke()
    },
    poke: () => loop.poke(),
    start: () => loop.start(),
    stop: () => loop.stop(),
  }
}

/** What an earlier life of this boot left. */
function readEarlier({ lease, bootId }: FenceHost, logger: Logger): Lease | null {
  try {
    const found = decodeLease(lease.read() ?? '')
    return found?.bootId === bootId ? found : null
  } catch (error) {
    logger.warn('the lease of before cannot be read', { error: messageOf(error) })
    return null
  }
}

function keptOf(earlier: Lease | null, nowMs: number): ReadonlyMap<InstanceId, KeptInstance> {
  return new Map(
    (earlier?.instances ?? []).map((leased) => [
      leased.instance,
      { ...leased, neededMs: nowMs, ids: new Map(leased.ids.map((id) => [id, nowMs])) },
    ]),
  )
}
