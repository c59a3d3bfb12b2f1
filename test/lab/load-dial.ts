/**
 * A dial for the load of a service under test: the test sets the demand in instances' worth, each instance asks for its load, and
 * gets its share of the demand by how many asked lately. So more instances mean less load for each, as with real work.
 */
import { createServer } from 'node:http'

export interface LoadDial {
  readonly url: string
  /** Sum of loads over the instances of that service, in percent: 150 fills one instance and a half. */
  set(service: string, totalPercent: number): void
  /** Epoch ms at which an instance first heard of what was set last; null before. */
  heardAtMs(service: string): number | null
  stop(): Promise<void>
}

const FRESH_MS = 1_500

export async function startLoadDial(host: string, port: number): Promise<LoadDial> {
  const totals = new Map<string, number>()
  const seenAtMs = new Map<string, number>()
  const heardAtMs = new Map<string, number>()
  const server = createServer((request, response) => {
    const instance = new URL(request.url ?? '/', 'http://dial').searchParams.get('instance') ?? ''
    const service = instance.split('/').slice(0, 2).join('/')
    const now = performance.now()
    seenAtMs.set(instance, now)
    const asking = [...seenAtMs].filter(([id, at]) => id.startsWith(`${service}/`) && now - at < FRESH_MS).length
    if (!heardAtMs.has(service)) heardAtMs.set(service, Date.now())
    response.end(String(Math.min(100, (totals.get(service) ?? 0) / Math.max(1, asking))))
  })
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject)
    server.listen(port, host, resolve)
  })
  return {
    url: `http://${host}:${port}/`,
    set(service, total) {
      totals.set(service, total)
      heardAtMs.delete(service)
    },
    heardAtMs: (service) => heardAtMs.get(service) ?? null,
    async stop() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
