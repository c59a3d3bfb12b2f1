/** Runs cells on all cores: one worker thread each. */
import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import type { Cell, CellJob } from './elasticity-cell.ts'

export type Outcome = { readonly job: CellJob; readonly tookMs: number } & ({ readonly cell: Cell } | { readonly error: string })

/** In the order of the jobs; a job that fails does not end the others. `onDone` is called with each as it ends. */
export async function measureCells(jobs: readonly CellJob[], onDone: (outcome: Outcome) => void): Promise<readonly Outcome[]> {
  const outcomes = new Map<number, Outcome>()
  let next = 0
  const work = () =>
    new Promise<void>((resolve, reject) => {
      const worker = new Worker(new URL('./elasticity-worker-thread.ts', import.meta.url))
      let at = -1
      let startedMs = 0
      const give = () => {
        at = next
        next += 1
        const job = jobs[at]
        startedMs = performance.now()
        if (job === undefined) void worker.terminate().then(() => resolve())
        else worker.postMessage(job)
      }
      worker.on('message', (answer: { cell: Cell } | { error: string }) => {
        const job = jobs[at]
        if (job !== undefined) {
          const outcome = { job, tookMs: performance.now() - startedMs, ...answer }
          outcomes.set(at, outcome)
          onDone(outcome)
        }
        give()
      })
      worker.on('error', reject)
      give()
    })
  await Promise.all(Array.from({ length: Math.min(jobs.length, availableParallelism()) }, work))
  return jobs.flatMap((_, index) => outcomes.get(index) ?? [])
}
