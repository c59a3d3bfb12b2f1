/** Entry of a worker thread of the elasticity bench: a job comes, a cell goes. */
import { parentPort } from 'node:worker_threads'
import { type CellJob, measureCell } from './elasticity-cell.ts'

parentPort?.on('message', (job: CellJob) => {
  try {
    parentPort?.postMessage({ cell: measureCell(job) })
  } catch (error) {
    parentPort?.postMessage({ error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  }
})
