/** The program `rubato-agent fence`: stops this node's strict singletons when their lease runs out, whether an agent lives or not. */
import { parseArgs } from 'node:util'
import { systemClock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import { pinoLogger } from '../../shared/pino-logger.ts'
import { VERSION } from '../../shared/version.ts'
import { processFenceHands } from '../runtime/process/process-fence.ts'
import { readBootId } from '../runtime/process/process-table.ts'
import { runFence } from './fence-loop.ts'
import { decodeLease } from './lease.ts'
import { leaseFile } from './lease-file.ts'
import { claim, disclaim, holds, hostSteadyClock, leasePathOf } from './watchdog-process.ts'

/** Runs until nothing is left to watch or another one takes over; resolves with the exit code. Signals do not end it. */
export async function runWatchdog(argv: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      'state-dir': { type: 'string', default: '' },
      engine: { type: 'string', default: 'process' },
      'docker-socket': { type: 'string', default: '' },
    },
  })
  const stateDir = values['state-dir']
  const logger = pinoLogger('info', { program: 'rubato-agent fence', pid: process.pid })
  const clock = systemClock()
  const lease = leaseFile(leasePathOf(stateDir))
  const bootId = readBootId()
  const steadyMs = hostSteadyClock()
  const hands =
    values.engine === 'docker'
      ? // Its client is worth ten megabytes, which a node without an engine need not have.
        {
          docker: (await import('../runtime/docker/docker-fence.ts')).dockerFenceHands({
            socketPath: values['docker-socket'],
            clock,
          }),
        }
      : { process: processFenceHands(stateDir) }
  try {
    const mine = claim(stateDir)
    logger.info('the watchdog of strict singletons runs', { version: VERSION })
    for (;;) {
      await runFence({ lease, hands, bootId, steadyMs, clock, logger, isOver: () => !holds(stateDir, mine) })
      if (!holds(stateDir, mine)) break
      // An agent that writes a lease looks for a watchdog after that: it finds none from here on, or the lease is found here.
      disclaim(stateDir, mine)
      const found = decodeLease(lease.read() ?? '')
      if (found === null || found.bootId !== bootId || found.instances.length === 0) break
      claim(stateDir)
    }
    logger.info('the watchdog of strict singletons ends')
    return 0
  } catch (error) {
    logger.error('the watchdog of strict singletons failed', { error: messageOf(error) })
    return 1
  }
}
