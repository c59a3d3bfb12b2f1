/** The demo's users: a closed loop of `concurrency` callers with a key, and a few without one. Counts every outcome. */
import { Agent, request } from 'node:http'
import { connect } from 'node:net'

export interface Traffic {
  setConcurrency(count: number): void
  /** Where to send requests: nodes that are in service, changed at any time; each is used once it accepts connections. */
  setEntries(hosts: readonly string[]): void
  readonly counts: { ok: number; failed: number; denied: number; admittedWithoutKey: number }
  /** Distinct failures, at most 20, for the report. */
  readonly failures: readonly string[]
  /** Ends all callers after their present request. */
  stop(): Promise<void>
}

export function startTraffic(port: number, path: string, key: string): Traffic {
  const counts = { ok: 0, failed: 0, denied: 0, admittedWithoutKey: 0 }
  const failures = new Set<string>()
  const agent = new Agent({ keepAlive: true, maxSockets: 512, scheduling: 'fifo' })
  const callers = new Set<Promise<void>>()
  let entries: readonly string[] = []
  const open = new Set<string>()
  const probing = new Set<string>()
  let wanted = 0
  let running = 0
  let turn = 0
  let stopped = false

  const call = (withKey: boolean) =>
    new Promise<number>((resolve, reject) => {
      turn += 1
      const host = entries[turn % entries.length] ?? '127.0.0.1'
      const outgoing = request(
        { agent, host, port, path, timeout: 30_000, headers: withKey ? { authorization: `Bearer ${key}` } : {} },
        (response) => {
          response.resume()
          response.on('end', () => resolve(response.statusCode ?? 0))
          response.on('error', reject)
        },
      )
      outgoing.on('timeout', () => outgoing.destroy(new Error('no answer in 30 s')))
      outgoing.on('error', (error) => reject(new Error(`${host}: ${error.message}`)))
      outgoing.end()
    })
  const fail = (what: string) => {
    counts.failed += 1
    if (failures.size < 20) failures.add(what)
  }
  const caller = async () => {
    while (!stopped && running <= wanted) {
      try {
        const status = await call(true)
        if (status === 200) counts.ok += 1
        else fail(`status ${status}`)
      } catch (error) {
        fail(String(error))
        await new Promise((resolve) => setTimeout(resolve, 50))
      }
    }
    running -= 1
  }
  const grow = () => {
    while (!stopped && running < wanted && entries.length > 0) {
      running += 1
      const promise = caller()
      callers.add(promise)
      void promise.finally(() => callers.delete(promise))
    }
  }
  // A stranger knocks five times a second.
  const stranger = setInterval(() => {
    if (entries.length === 0 || wanted === 0) return
    call(false).then(
      (status) => {
        if (status === 401) counts.denied += 1
        else if (status === 200) counts.admittedWithoutKey += 1
        else fail(`without a key: status ${status}`)
      },
      (error) => fail(`without a key: ${error}`),
    )
  }, 200)

  return {
    counts,
    get failures() {
      return [...failures]
    },
    setConcurrency(count) {
      wanted = count
      grow()
    },
    setEntries(hosts) {
      // Like any balancer in front of nodes: one that has just joined gets traffic when it accepts connections.
      for (const host of hosts)
        if (!open.has(host) && !probing.has(host)) {
          probing.add(host)
          const socket = connect({ host, port, timeout: 1_000 })
          socket.on('connect', () => open.add(host))
          for (const event of ['connect', 'error', 'timeout'] as const) socket.on(event, () => socket.destroy())
          socket.on('close', () => probing.delete(host))
        }
      entries = hosts.filter((host) => open.has(host))
      grow()
    },
    async stop() {
      stopped = true
      clearInterval(stranger)
      await Promise.all(callers)
      agent.destroy()
    },
  }
}
