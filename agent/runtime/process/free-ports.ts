/** Ports that nobody listens on. */
import { createServer } from 'node:net'
import { ConflictError } from '../../../shared/errors.ts'
import type { Random } from '../../../shared/random.ts'

/** From here on, below the range the kernel hands to outgoing connections and beside the gateway's. */
const FIRST_PORT = 30_000
const LAST_PORT = 32_700
const ATTEMPTS = 200

/** `count` different ports on `address` that are free now and not in `taken`. Throws ConflictError when there are none. */
export async function freePorts(address: string, count: number, taken: ReadonlySet<number>, random: Random): Promise<number[]> {
  const found: number[] = []
  for (let attempt = 0; attempt < ATTEMPTS && found.length < count; attempt += 1) {
    const port = FIRST_PORT + Math.floor(random.next() * (LAST_PORT - FIRST_PORT))
    if (!taken.has(port) && !found.includes(port) && (await isFree(address, port))) found.push(port)
  }
  if (found.length < count) throw new ConflictError(`no free port was found on ${address}`)
  return found
}

/** Whether a listener could be bound there. */
export function isFree(address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ host: address, port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}
