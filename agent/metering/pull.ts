/** Asks instances for their load, each source at its own interval, and puts what they say into the inbox. */
import { request } from 'node:http'
import type { Clock, Timer } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { LoadPull } from '../../shared/model/unit.ts'
import type { LoadInbox } from '../local-api/load-inbox.ts'
import { pulledPercent } from './pulled-value.ts'

export interface PullTarget {
  readonly instance: InstanceId
  readonly pull: LoadPull
  readonly address: string
  /** Where the container port of `pull` really listens. */
  readonly port: number
}

/** Fetches a text; rejects on any failure, time-out, status other than 200, or a body longer than it may be. */
export type FetchText = (address: string, port: number, path: string) => Promise<string>

export interface LoadPuller {
  /** The complete set of sources; those no longer in it are no longer asked. */
  setTargets(targets: readonly PullTarget[]): void
  stop(): void
}

interface Running {
  target: PullTarget
  timer: Timer
  failing: boolean
}

const MIN_INTERVAL_MS = 500

export function createLoadPuller(deps: { fetchText: FetchText; loadInbox: LoadInbox; clock: Clock; logger: Logger }): LoadPuller {
  const running = new Map<string, Running>()

  const ask = async (key: string): Promise<void> => {
    const entry = running.get(key)
    if (entry === undefined) return
    const { target } = entry
    let problem: string | null = null
    try {
      const text = await deps.fetchText(target.address, target.port, target.pull.path)
      const percent = pulledPercent(target.pull, text)
      if (percent === null) problem = 'no usable value'
      else if (running.get(key) === entry) deps.loadInbox.set(target.instance, { loadPercent: percent, demand: null })
    } catch (error) {
      problem = messageOf(error)
    }
    if (problem !== null && !entry.failing) deps.logger.warn('load cannot be pulled', { instance: target.instance, problem })
    if (problem === null && entry.failing) deps.logger.info('load is pulled again', { instance: target.instance })
    entry.failing = problem !== null
    if (running.get(key) === entry) schedule(key, entry)
  }

  const schedule = (key: string, entry: Running): void => {
    // The next question comes after the answer: a slow service is not asked twice at once.
    entry.timer = deps.clock.setTimer(Math.max(MIN_INTERVAL_MS, entry.target.pull.intervalMs), () => void ask(key))
  }

  return {
    setTargets(targets) {
      const present = new Set<string>()
      for (const target of targets) {
        const key = `${target.instance} ${JSON.stringify(target.pull)}`
        present.add(key)
        const known = running.get(key)
        if (known !== undefined) {
          known.target = target
          continue
        }
        const entry: Running = { target, timer: { cancel() {} }, failing: false }
        running.set(key, entry)
        entry.timer = deps.clock.setTimer(0, () => void ask(key))
      }
      for (const [key, entry] of running) {
        if (present.has(key)) continue
        entry.timer.cancel()
        running.delete(key)
      }
    },
    stop() {
      for (const entry of running.values()) entry.timer.cancel()
      running.clear()
    },
  }
}

const PULL_TIMEOUT_MS = 2_000
const MAX_PULL_BYTES = 1_048_576

/** The real one, over HTTP. Redirects are not followed: an instance must not point the agent elsewhere. */
export function httpFetchText(clock: Clock): FetchText {
  return (address, port, path) =>
    new Promise((resolve, reject) => {
      const timer = clock.setTimer(PULL_TIMEOUT_MS, () => sent.destroy(new Error(`no answer within ${PULL_TIMEOUT_MS} ms`)))
      const fail = (error: Error) => {
        timer.cancel()
        reject(error)
      }
      const sent = request({
        host: address,
        port,
        path,
        method: 'GET',
        agent: false,
        headers: { accept: 'application/json, text/plain' },
      })
      sent.on('error', fail)
      sent.on('response', (response) => {
        const parts: Buffer[] = []
        let length = 0
        if (response.statusCode !== 200) sent.destroy(new Error(`status ${response.statusCode}`))
        response.on('error', fail)
        response.on('data', (part: Buffer) => {
          length += part.length
          if (length > MAX_PULL_BYTES) sent.destroy(new Error(`more than ${MAX_PULL_BYTES} bytes`))
          else parts.push(part)
        })
        response.on('end', () => {
          timer.cancel()
          resolve(Buffer.concat(parts).toString('utf8'))
        })
      })
      sent.end()
    })
}
