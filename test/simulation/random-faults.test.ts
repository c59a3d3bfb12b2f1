/**
 * Random requests and faults, then peace: `SEEDS=500` for more seeds, `FIRST_SEED=n` for others, `SEED=n` for one again with the
 * end of its trace.
 */
import { describe, expect, it } from 'vitest'
import { runSeed, SeedFailure } from './random-scenario.ts'

const one = process.env.SEED
const first = Number(one ?? process.env.FIRST_SEED ?? 1)
const count = one === undefined ? Number(process.env.SEEDS ?? 20) : 1

describe('random requests and faults', () => {
  it(
    'keep every invariant and converge within their time (rows 1–3, 15–17, 19–23, 25, 37, 40)',
    async () => {
      const failures: string[] = []
      let steps = 0
      const begunMs = performance.now()
      for (let seed = first; seed < first + count; seed += 1) {
        try {
          steps += (await runSeed(seed)).steps
        } catch (error) {
          if (!(error instanceof SeedFailure)) throw error
          if (one !== undefined) process.stderr.write(`${error.tail}\n`)
          failures.push(`seed ${seed}: ${error.message}`)
        }
      }
      const seconds = Math.round(performance.now() - begunMs) / 1000
      process.stdout.write(`${JSON.stringify({ seeds: count, steps, violations: failures.length, seconds })}\n`)
      expect(failures).toEqual([])
    },
    60_000 + count * 20_000,
  )

  it('a seed goes the same way twice', async () => {
    const [a, b] = [await runSeed(first).catch(hashOf), await runSeed(first).catch(hashOf)]
    expect(a).toEqual(b)
  })
})

function hashOf(error: unknown): string {
  return error instanceof SeedFailure ? `${error.message} ${error.tail}` : String(error)
}
