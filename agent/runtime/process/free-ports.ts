/** Ports that nobody listens on. */
import { createServer } from 'node:net'
import { ConflictError } from '../../../shared/errors.ts'
import type { Random } from '../../../shared/random.ts'

/** From here on, below the range the kernel hands to outgoing connections and beside the gateway's. */
const FIRST_PORT = 30_000
const LAST_PORT = 32_700
const ATTEMPTS = 200

/** The map with a free port for each of its own; ports of an earlier run (not 0) are kept while they are free. */
export async function portsFor(
  before: Readonly<Record<string, number>>,
  address: string,
  taken: ReadonlySet<number>,
  random: Random,
): Promise<Record<string, number>> {
  const portMap: Record<string, number> = {}
  for (const [port, moved] of Object.entries(before))
    if (moved !== 0 && !taken.has(moved) && (await isFree(address, moved))) portMap[port] = moved
  const missing = Object.keys(before).filter((port) => portMap[port] === undefined)
  const found = await freePorts(address, missing.length, new Set([...taken, ...Object.values(portMap)]), random)
  missing.forEach((port, index) => {
    portMap[port] = found[index] ?? 0
  })
  return portMap
}

/** `count` different ports on `address` that are free now and not in `taken`. Throws ConflictError when there are none. */
async function freePorts(address: string, count: number, taken: ReadonlySet<number>, random: Random): Promise<number[]> {
  const found: number[] = []
  for (let attempt = 0; attempt < ATTEMPTS && found.length < count; attempt += 1) {
    const port = FIRST_PORT + Math.floor(random.next() * (LAST_PORT - FIRST_PORT))
    if (!taken.has(port) && !found.includes(port) && (await isFree(address, port))) found.push(port)
  }
  if (found.length < count) throw new ConflictError(`no free port was found on ${address}`)
  return found
}

/** Whether a listener could be bound there. */
function isFree(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ host: address, port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}
