/** Steady requests for tests: so many per second, whatever the answers take, spread over several hosts; each failure is named. */
import { Agent, request } from 'node:http'

export interface Answer {
  readonly status: number
  readonly text: string
}

/** One request over a connection of its own. Rejects when there is no answer in `timeoutMs`. */
export function ask(url: string, key: string | null, timeoutMs = 5_000, agent: Agent | false = false): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request(url, { agent, headers: key === null ? {} : { authorization: `Bearer ${key}` } }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
      response.on('error', reject)
    })
    // A timer of ours: the socket's own would count idle time only.
    const timer = setTimeout(() => call.destroy(new Error(`no answer in ${timeoutMs} ms`)), timeoutMs)
    call.on('close', () => clearTimeout(timer))
    call.on('error', reject)
    call.end()
  })
}

export interface RequestsReport {
  readonly ok: number
  readonly failed: number
  /** Failure → how often, with when it was first seen (ms since the start). */
  readonly failures: readonly string[]
  readonly perSecond: number
  /** Answers by their text. */
  readonly texts: ReadonlyMap<string, number>
}

export interface Requests {
  /** Counts from now on only. */
  reset(): void
  report(): RequestsReport
  /** Waits for the answers under way. */
  stop(): Promise<RequestsReport>
}

const MAX_IN_FLIGHT = 500
const TICK_MS = 20

export function startRequests(
  urls: readonly string[],
  key: string,
  perSecond: number,
  accept: (answer: Answer) => boolean = ({ status }) => status === 200,
): Requests {
  const agent = new Agent({ keepAlive: true, maxSockets: 64 })
  const underWay = new Set<Promise<void>>()
  let ok = 0
  let failed = 0
  let startedAt = performance.now()
  let failures = new Map<string, { count: number; atMs: number }>()
  let texts = new Map<string, number>()
  let turn = 0
  let due = 0
  let lastTick = performance.now()
  const fail = (text: string) => {
    failed += 1
    const known = failures.get(text)
    if (known) known.count += 1
    else failures.set(text, { count: 1, atMs: Math.round(performance.now() - startedAt) })
  }
  const one = async () => {
    turn += 1
    const url = urls[turn % urls.length] ?? ''
    try {
      const answer = await ask(url, key, 15_000, agent)
      if (!accept(answer)) fail(`${url}: ${answer.status} ${answer.text.slice(0, 160)}`)
      else {
        ok += 1
        if (texts.size < 1000) texts.set(answer.text, (texts.get(answer.text) ?? 0) + 1)
      }
    } catch (error) {
      fail(`${url}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  const timer = setInterval(() => {
    const now = performance.now()
    // A pause of this process is not caught up with a burst.
    due += Math.min(now - lastTick, 100) * (perSecond / 1000)
    lastTick = now
    while (due >= 1) {
      due -= 1
      if (underWay.size >= MAX_IN_FLIGHT) continue
      const call = one()
      underWay.add(call)
      void call.finally(() => underWay.delete(call))
    }
  }, TICK_MS)
  const report = (): RequestsReport => ({
    ok,
    failed,
    failures: [...failures].map(([text, { count, atMs }]) => `${count} × ${text} (first at ${atMs} ms)`),
    perSecond: Math.round(ok / ((performance.now() - startedAt) / 1000)),
    texts,
  })
  return {
    reset() {
      ok = 0
      failed = 0
      failures = new Map()
      texts = new Map()
      startedAt = performance.now()
    },
    report,
    async stop() {
      clearInterval(timer)
      const result = report()
      await Promise.all(underWay)
      agent.destroy()
      return { ...report(), perSecond: result.perSecond }
    },
  }
}
