/** Looks after the Prometheus that answers for the past: whether it does, and says in the audit trail when it does not, and when it does again. */
import type { Clock } from '../../../shared/clock.ts'
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import { createLoop, type Loop } from '../../../shared/loop.ts'
import { commitChange } from '../../access/commit-change.ts'
import type { State } from '../../state/state.ts'
import type { PrometheusPast } from './prometheus-past.ts'

export interface PrometheusLoopDeps {
  readonly past: Pick<PrometheusPast, 'probe' | 'status' | 'onAway'>
  readonly state: State
  readonly clock: Clock
  readonly logger: Logger
}

const PROBE_MS = 15_000
/** People wait for it. */
const AWAY_PROBE_MS = 5_000

export function createPrometheusLoop({ past, state, clock, logger: root }: PrometheusLoopDeps): Loop {
  const logger = root.with({ loop: 'prometheus' })
  let toldFault: string | null = null
  let loggedFault: string | null = null

  const tell = async () => {
    const { fault, isAway } = past.status()
    if (fault !== loggedFault) {
      logger[fault === null ? 'info' : 'warn']('the state of Prometheus changed', {
        from: loggedFault ?? 'well',
        to: fault ?? 'well',
      })
      loggedFault = fault
    }
    if ((fault === null) === (toldFault === null)) return
    try {
      await commitChange(state, (change) =>
        change.event({
          actor: 'history',
          type: fault === null ? 'history.prometheus-back' : 'history.prometheus-fault',
          subject: 'history',
          message:
            fault === null
              ? 'Prometheus answers for the past again'
              : `Prometheus: ${fault}${isAway ? '. What this coordinator recorded itself answers meanwhile' : ''}`,
          severity: fault === null ? 'info' : 'warning',
        }),
      )
      toldFault = fault
    } catch (error) {
      logger.debug('the state of Prometheus could not be told', { error: messageOf(error) })
    }
  }

  const loop = createLoop({
    name: 'prometheus',
    clock,
    logger,
    maxSleepMs: PROBE_MS,
    async run(signal) {
      // Before it: what a query met since is told even when it has passed.
      await tell()
      await past.probe(signal)
      await tell()
      return clock.now() + (past.status().isAway ? AWAY_PROBE_MS : PROBE_MS)
    },
  })
  past.onAway(() => {
    // Its own probes find it away too; that is told already.
    if (toldFault === null) loop.poke()
  })
  return loop
}
