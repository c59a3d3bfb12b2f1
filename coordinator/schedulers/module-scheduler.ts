/**
 * A custom scheduler that is a module of the operator's: `export function schedule(question)` returns the answer, or a promise of it. It
 * runs in a worker thread, so that an endless loop in it stops nobody: what misses its deadline is ended, and the module is loaded
 * anew for the next question (what it kept in memory is lost). Other questions that were under way there are interrupted, which is
 * not their fault. Its memory limit is a brake, no sandbox: one huge
 * allocation still ends the whole process, as V8 has it.
 */
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'
import { type Clock, sleep } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { WORKER_URL, type WorkerMessage } from './module-worker.ts'
import { MAX_ANSWER_BYTES } from './protocol.ts'
import { oneLine } from './read-answer.ts'
import type { Reply, Scheduler } from './scheduler.ts'

export interface ModuleSchedulerOptions {
  readonly name: string
  /** Absolute. */
  readonly path: string
  readonly deadlineMs: number
  readonly maxCandidates: number
  readonly clock: Clock
  readonly logger: Logger
}

/** A module may read files and warm up when it is loaded, but a start must not hang on it. */
const LOAD_DEADLINE_MS = 10_000
const MEMORY_LIMIT_MB = 256
/** Of what a module prints or fails with, so many characters are told. */
const MAX_MESSAGE = 300

const INTERRUPTED: Reply = { kind: 'failed', code: 'interrupted', detail: 'another question ended its thread' }

interface Running {
  readonly worker: Worker
  readonly waiting: Map<number, (reply: Reply) => void>
  /** Settles once the module is loaded, or cannot be. */
  readonly ready: Promise<void>
}

/** Loads the module; rejects with the reason when it cannot be used. */
export async function createModuleScheduler(options: ModuleSchedulerOptions): Promise<Scheduler> {
  const { name, deadlineMs, maxCandidates, clock } = options
  const logger = options.logger.with({ scheduler: name })
  let nextId = 1
  let isClosed = false
  let running: Running | null = null

  const load = (): Running => {
    const worker = new Worker(WORKER_URL, {
      workerData: { href: pathToFileURL(options.path).href },
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_LIMIT_MB },
      stdout: true,
      stderr: true,
    })
    // Whoever waits for it has a timer; by itself it keeps no process alive.
    worker.unref()
    const loaded = Promise.withResolvers<void>()
    const mine: Running = { worker, waiting: new Map(), ready: inTime(loaded.promise) }
    const end = (why: string) => {
      if (running === mine) running = null
      loaded.reject(new Error(why))
      // Whose question it was cannot be told: one fault is one failure.
      const [first, ...others] = mine.waiting.values()
      mine.waiting.clear()
      first?.(crashed(why))
      for (const answer of others) answer(INTERRUPTED)
    }
    // Whoever needs it awaits it; a reload that nobody waits for must not count as an unhandled rejection.
    mine.ready.catch(() => {
      if (running === mine) running = null
      void worker.terminate()
    })
    for (const stream of [worker.stdout, worker.stderr])
      stream.on('data', (text: Buffer) =>
        logger.info('scheduler module says', { text: oneLine(text.toString('utf8', 0, 4_096), MAX_MESSAGE) }),
      )
    worker.on('message', (message: unknown) => {
      // The module has the same port, and may send anything.
      if (!isWorkerMessage(message)) return
      if (message.kind === 'ready') return loaded.resolve()
      const answer = mine.waiting.get(message.id)
      mine.waiting.delete(message.id)
      answer?.(message.kind === 'threw' ? crashed(`it threw: ${message.message}`) : replyOf(message.text))
    })
    worker.on('error', (error) => end(oneLine(messageOf(error), MAX_MESSAGE)))
    worker.on('exit', () => end('its worker ended'))
    return mine
  }

  const inTime = async (loaded: Promise<void>): Promise<void> => {
    const settled = new AbortController()
    const overdue = sleep(clock, LOAD_DEADLINE_MS, settled.signal).then(() => {
      throw new Error(`it was not loaded within ${LOAD_DEADLINE_MS / 1000} s`)
    })
    try {
      await Promise.race([loaded, overdue])
    } finally {
      settled.abort(new Error('settled'))
    }
  }

  const serving = (): Running => {
    running ??= load()
    return running
  }

  await serving().ready
  return {
    name,
    deadlineMs,
    maxCandidates,
    async ask(question, signal) {
      const mine = serving()
      await mine.ready
      if (signal.aborted) return crashed('it was still being loaded')
      const id = nextId++
      return new Promise<Reply>((resolve) => {
        const onAbort = () => {
          if (!mine.waiting.delete(id)) return
          resolve(crashed('it was ended'))
          if (running !== mine) return
          // It may never come back from what it does now.
          logger.warn('scheduler module missed its deadline and is loaded anew')
          running = isClosed ? null : load()
          const others = [...mine.waiting.values()]
          mine.waiting.clear()
          void mine.worker.terminate()
          for (const answer of others) answer(INTERRUPTED)
        }
        signal.addEventListener('abort', onAbort, { once: true })
        mine.waiting.set(id, (reply) => {
          signal.removeEventListener('abort', onAbort)
          resolve(reply)
        })
        mine.worker.postMessage({ id, question })
      })
    },
    async recovered() {
      if (!isClosed) await serving().ready
    },
    async close() {
      isClosed = true
      // Not awaited: a thread that is busy collecting garbage may take its time, and it keeps no process alive.
      void running?.worker.terminate()
      running = null
    },
  }
}

function isWorkerMessage(message: unknown): message is WorkerMessage {
  if (typeof message !== 'object' || message === null) return false
  const { kind, id, text, message: why } = message as Readonly<Record<string, unknown>>
  if (kind === 'ready') return true
  return typeof id === 'number' && (kind === 'reply' ? typeof text === 'string' : kind === 'threw' && typeof why === 'string')
}

function replyOf(text: string): Reply {
  return Buffer.byteLength(text) <= MAX_ANSWER_BYTES
    ? { kind: 'text', text }
    : { kind: 'failed', code: 'bad-answer', detail: `its answer is larger than ${MAX_ANSWER_BYTES / 1024} KiB` }
}

function crashed(detail: string): Reply {
  return { kind: 'failed', code: 'crashed', detail }
}
