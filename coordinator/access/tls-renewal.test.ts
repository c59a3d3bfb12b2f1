import { describe, expect, it } from 'vitest'
import { silentLogger } from '../../shared/logger.ts'
import { seededRandom } from '../../shared/random.ts'
import { memoryFiles } from '../../test/fakes/memory-files.ts'
import { virtualClock } from '../../test/fakes/virtual-clock.ts'
import { ensureTls, type TlsIdentity } from './ca.ts'
import { keepTlsFresh } from './tls-renewal.ts'

const DAY_MS = 86_400_000

describe('renewal of the certificate', () => {
  it('a running coordinator gets a new certificate before the old one ends, also after a failure', async () => {
    const clock = virtualClock()
    const logger = silentLogger()
    const deps = { files: memoryFiles(), stateDir: '/s', clock, random: seededRandom(1), logger }
    const first = await ensureTls(deps, ['localhost'])
    const applied: TlsIdentity[] = []
    let failures = 1
    // Keys are made outside the virtual time: this says when one is done.
    let done = Promise.withResolvers<void>()
    const watch = keepTlsFresh(first, {
      clock,
      logger,
      async renew() {
        if (failures > 0) {
          failures -= 1
          throw new Error('disk')
        }
        return ensureTls(deps, ['localhost'])
      },
      apply(identity) {
        applied.push(identity)
        done.resolve()
      },
    })
    await clock.advance(59 * DAY_MS)
    expect(applied).toHaveLength(0)
    await clock.advance(DAY_MS + 3_600_000)
    await done.promise
    expect(failures).toBe(0)
    expect(applied[0]?.certPem).not.toBe(first.certPem)
    expect(applied[0]?.caDigest).toBe(first.caDigest)
    expect(applied[0]?.renewAtMs).toBeGreaterThan(clock.now())
    done = Promise.withResolvers<void>()
    await clock.advance(61 * DAY_MS)
    await done.promise
    expect(applied).toHaveLength(2)
    watch.stop()
  })

  it('files of the user’s own are left alone, and nothing is left behind', async () => {
    const clock = virtualClock()
    const identity = { caPem: '', caDigest: '', certPem: '', keyPem: '', renewAtMs: Number.POSITIVE_INFINITY }
    const untouched = () => {
      throw new Error('unexpected')
    }
    keepTlsFresh(identity, { clock, logger: silentLogger(), renew: untouched, apply: untouched }).stop()
    expect(clock.pendingTimers).toBe(0)
  })
})
