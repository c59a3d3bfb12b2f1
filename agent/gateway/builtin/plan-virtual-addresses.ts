/**
 * Virtual addresses of services on this node. Pure. An app owns a block of 64 addresses of the node's mesh slice, found by
 * its name's hash; a service is its ordinal within the block. So the same service has the same address at every start, as far
 * as blocks do not collide; then the app that sorts later takes the next free block.
 */
import { compare } from '../../../shared/compare.ts'
import { hashText } from './balance.ts'

const BLOCK = 64

export interface RoutedService {
  /** `app/service`. */
  readonly service: string
  /** 1-based, stable within the app. */
  readonly ordinal: number
}

/** Addresses by service. `held` are those in use already: they stay. Services beyond the slice get none. */
export function planVirtualAddresses(
  services: readonly RoutedService[],
  slice: string,
  held: ReadonlyMap<string, string> = new Map(),
): ReadonlyMap<string, string> {
  const range = parseSlice(slice)
  const addresses = new Map<string, string>()
  if (range === null) return addresses
  const taken = new Set<string>()
  for (const { service } of services) {
    const address = held.get(service)
    if (address === undefined) continue
    addresses.set(service, address)
    taken.add(address)
  }
  const blocks = Math.max(1, Math.floor(range.size / BLOCK))
  const sorted = [...services].sort((a, b) => compare(a.service, b.service))
  for (const { service, ordinal } of sorted) {
    if (addresses.has(service)) continue
    const app = service.slice(0, service.indexOf('/'))
    const wanted = (hashText(app) % blocks) * BLOCK + ordinal
    for (let step = 0; step < range.size; step += 1) {
      // First other blocks with the same ordinal, then any address at all.
      const offset = (wanted + step * BLOCK + Math.floor(step / blocks)) % range.size
      if (offset === 0 || offset === range.size - 1) continue
      const address = formatAddress(range.base + offset)
      if (taken.has(address)) continue
      addresses.set(service, address)
      taken.add(address)
      break
    }
  }
  return addresses
}

/** First address and size of an IPv4 CIDR, or null when it is none. */
function parseSlice(cidr: string): { base: number; size: number } | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(cidr)
  if (match === null) return null
  const [a, b, c, d, bits] = match.slice(1).map(Number) as [number, number, number, number, number]
  if (a > 255 || b > 255 || c > 255 || d > 255 || bits > 30 || bits < 4) return null
  const size = 2 ** (32 - bits)
  const address = ((a * 256 + b) * 256 + c) * 256 + d
  return { base: address - (address % size), size }
}

function formatAddress(value: number): string {
  return `${Math.floor(value / 2 ** 24) % 256}.${Math.floor(value / 2 ** 16) % 256}.${Math.floor(value / 256) % 256}.${value % 256}`
}
