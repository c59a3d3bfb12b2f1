/** Answers the coordinator's requests for logs over the link: one reader per request, batches, backpressure by waiting. */
import { type Clock, sleep } from '../shared/clock.ts'
import { messageOf } from '../shared/errors.ts'
import type { LogsRequestFrame } from '../shared/protocol/frames.ts'
import type { Link } from './link/link.ts'
import type { LogLine, Runtime } from './runtime/runtime.ts'

export interface ServeLogsDeps {
  readonly link: Pick<Link, 'sendLog'>
  readonly clock: Clock
  /** Where the instance's log is; null when it has none here. */
  source(request: LogsRequestFrame): { readonly runtime: Runtime; readonly id: string } | null
}

/** Requests read at once; more are refused. */
const MAX_REQUESTS = 32
const BATCH_LINES = 200
const FLUSH_MS = 100
const MAX_LINE = 16_384

export function serveLogs(deps: ServeLogsDeps): (request: LogsRequestFrame) => void {
  const running = new Map<string, AbortController>()

  const serve = async (request: LogsRequestFrame, abort: AbortController) => {
    let batch: LogLine[] = []
    const flush = async (end: boolean, error?: string) => {
      if (batch.length === 0 && !end) return
      const lines = batch
      batch = []
      // A link that is busy takes no more just now; a reader that is gone has been cancelled.
      for (let attempt = 0; attempt < 50; attempt += 1) {
        if (deps.link.sendLog(request.request, lines, end, error)) return
        await sleep(deps.clock, FLUSH_MS, abort.signal)
      }
      abort.abort(new Error('the reader does not keep up'))
    }
    try {
      const source = deps.source(request)
      if (source === null) return await flush(true, `nothing of ${request.instance} runs on this node`)
      const timer = { flushing: Promise.resolve() }
      let scheduled = false
      for await (const line of source.runtime.logs(source.id, { follow: request.follow, tail: request.tail }, abort.signal)) {
        batch.push(line.text.length > MAX_LINE ? { ...line, text: `${line.text.slice(0, MAX_LINE)}…` } : line)
        if (batch.length >= BATCH_LINES) await flush(false)
        else if (!scheduled) {
          scheduled = true
          deps.clock.setTimer(FLUSH_MS, () => {
            scheduled = false
            timer.flushing = flush(false).catch((error: unknown) => abort.abort(error))
          })
        }
      }
      await timer.flushing
      await flush(true)
    } catch (error) {
      if (!abort.signal.aborted) await flush(true, messageOf(error)).catch(() => undefined)
    } finally {
      running.delete(request.request)
    }
  }

  return (request) => {
    const earlier = running.get(request.request)
    if (request.cancel) {
      earlier?.abort(new Error('cancelled'))
      return
    }
    if (earlier) return
    if (running.size >= MAX_REQUESTS) {
      deps.link.sendLog(request.request, [], true, 'this node serves too many log readers already')
      return
    }
    const abort = new AbortController()
    running.set(request.request, abort)
    void serve(request, abort)
  }
}
