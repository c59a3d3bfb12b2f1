/** Renews the listener's certificate while the coordinator runs: it must not have to be restarted every 60 days. */
import type { Clock, Timer } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { TlsIdentity } from './ca.ts'

export interface TlsRenewalDeps {
  /** The identity of now, made anew where that is due (`ensureTls`). */
  renew(): Promise<TlsIdentity>
  /** Hands the listener a new one. */
  apply(identity: TlsIdentity): void
  readonly clock: Clock
  readonly logger: Logger
}

/** The wall clock is asked this often: it may jump, and timers do not follow it. */
const LOOK_EVERY_MS = 12 * 3_600_000
const RETRY_MS = 600_000

/** Watches `identity` until stopped. One that needs no renewal (files of the user's own) is left alone. */
export function keepTlsFresh(identity: TlsIdentity, deps: TlsRenewalDeps): { stop(): void } {
  const { clock, logger } = deps
  let current = identity
  let stopped = false
  let timer: Timer | null = null
  const look = () => {
    if (clock.now() < current.renewAtMs) return wait(current.renewAtMs - clock.now())
    deps.renew().then(
      (next) => {
        if (stopped) return
        current = next
        deps.apply(next)
        logger.info('server certificate renewed', { renewAtMs: next.renewAtMs })
        wait(Math.max(RETRY_MS, next.renewAtMs - clock.now()))
      },
      (error: unknown) => {
        logger.error('server certificate could not be renewed, will try again', { error: messageOf(error) })
        wait(RETRY_MS)
      },
    )
  }
  const wait = (delayMs: number) => {
    if (!stopped) timer = clock.setTimer(Math.min(delayMs, LOOK_EVERY_MS), look)
  }
  if (Number.isFinite(identity.renewAtMs)) look()
  return {
    stop() {
      stopped = true
      timer?.cancel()
    },
  }
}
