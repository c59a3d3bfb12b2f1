/** One authorization decision, in process: a key that was seen before, and a key seen for the first time (its secret is hashed). */
import { authorize } from '../../agent/gateway/policy.ts'
import { createVerifier } from '../../agent/gateway/verifier.ts'
import { fakeKeyRing } from '../fakes/key-ring.ts'
import type { BenchResult } from './result.ts'
import { quantile } from './statistics.ts'

const NOW = 1_800_000_000_000
const DECISIONS = 20_000
const ROUNDS = 5

export async function benchAuthorize(): Promise<readonly BenchResult[]> {
  const keys = fakeKeyRing(NOW)
  const policy = { public: false, sameApp: true, allow: [], roles: [], anyKey: true, methods: [], pathPrefixes: [] }
  const verify = createVerifier(keys)
  const decide = (credential: string) => {
    const request = { method: 'GET', path: '/', credential, callerService: null, service: 'shop/web' }
    return authorize(request, policy, { verify, confirmedAtMs: keys.confirmedAtMs }, NOW, 60_000)
  }
  const known = keys.issue('known')
  const fresh = Array.from({ length: DECISIONS }, (_, index) => keys.issue(`fresh-${index}`))
  const timed = (credential: string) => {
    const startedAt = performance.now()
    const verdict = decide(credential)
    const tookUs = (performance.now() - startedAt) * 1000
    if (!verdict.allow) throw new Error('a good key was refused')
    return tookUs
  }
  const seen: number[] = []
  for (let round = 0; round < ROUNDS; round += 1) {
    const took = Array.from({ length: DECISIONS }, () => timed(known))
    // The first round is the compiler's.
    if (round > 0) seen.push(...took)
  }
  const first = fresh.map(timed).slice(DECISIONS / 4)
  const figure = (name: string, values: readonly number[], target: number | null): BenchResult => ({
    name,
    value: quantile(values, 0.5),
    unit: 'µs',
    better: 'lower',
    target,
    peer: `p99 ${quantile(values, 0.99).toFixed(1)} µs`,
    ratio: null,
  })
  return [figure('gateway.authorize_known_key_us_p50', seen, 5), figure('gateway.authorize_first_use_us_p50', first, null)]
}
