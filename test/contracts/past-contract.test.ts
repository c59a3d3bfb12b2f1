import { createMemoryHistory } from '../../coordinator/history/memory-history.ts'
import { joinedPast, ownPast, type Past } from '../../coordinator/history/past.ts'
import type { HistoryBackend } from '../../coordinator/history/series.ts'
import { openSqliteHistory } from '../../coordinator/history/sqlite/sqlite-history.ts'
import type { Clock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { virtualClock } from '../fakes/virtual-clock.ts'
import { pastContract, type PastScenario, type Sample } from './past-contract.ts'

async function filled(history: HistoryBackend, samples: readonly Sample[]): Promise<HistoryBackend> {
  for (const { id, atMs, value } of samples) history.record(id, atMs, value)
  await history.flush()
  return history
}

function contractOf(name: string, tolerance: number, open: (clock: Clock, samples: readonly Sample[]) => Promise<Past>): void {
  pastContract(name, tolerance, async (scenarios) => {
    const pasts = new Map<PastScenario, Past>()
    for (const scenario of scenarios) pasts.set(scenario, await open(virtualClock(scenario.nowMs), scenario.samples))
    return (scenario) => {
      const past = pasts.get(scenario)
      if (past === undefined) throw new Error(`nothing of ${scenario.name}`)
      return past
    }
  })
}

contractOf('in memory', 1e-12, async (clock, samples) => ownPast(await filled(createMemoryHistory(clock), samples)))

contractOf('sqlite', 2 ** -12, async (clock, samples) => {
  const history = openSqliteHistory({
    path: ':memory:',
    clock,
    logger: silentLogger(),
    maxBytes: 64 << 20,
    pause: () => Promise.resolve(),
  })
  return ownPast(await filled(history, samples))
})

/** One has every other quarter of an hour, the other all, but of those quarters wrong values that must not be used. */
contractOf('two joined', 1e-12, async (clock, samples) => {
  const isOfFirst = ({ atMs }: Sample) => Math.floor(atMs / 900_000) % 2 === 0
  const first = await filled(createMemoryHistory(clock), samples.filter(isOfFirst))
  const other = await filled(
    createMemoryHistory(clock),
    samples.map((sample) => (isOfFirst(sample) ? { ...sample, value: 1e9 } : sample)),
  )
  return joinedPast(ownPast(first), ownPast(other))
})
