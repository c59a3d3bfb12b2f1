/**
 * The program of the worker thread that a scheduler module runs in, as text: the single executable has no file to start a worker from.
 * It speaks JSON text with the coordinator, so that a module is held to what an HTTP endpoint is held to.
 */

/** What a worker sends: once `ready`, then one reply per question. */
export type WorkerMessage =
  | { readonly kind: 'ready' }
  | { readonly kind: 'reply'; readonly id: number; readonly text: string }
  | { readonly kind: 'threw'; readonly id: number; readonly message: string }

const SOURCE = `
import { parentPort, workerData } from 'node:worker_threads'
const module = await import(workerData.href)
const schedule = module.schedule ?? module.default
if (typeof schedule !== 'function') throw new Error('it exports no function named schedule')
parentPort.on('message', async ({ id, question }) => {
  try {
    const answer = await schedule(JSON.parse(question))
    parentPort.postMessage({ kind: 'reply', id, text: JSON.stringify(answer) ?? 'null' })
  } catch (error) {
    parentPort.postMessage({ kind: 'threw', id, message: String(error?.message ?? error).slice(0, 500) })
  }
})
parentPort.postMessage({ kind: 'ready' })
`

export const WORKER_URL = new URL(`data:text/javascript,${encodeURIComponent(SOURCE)}`)
