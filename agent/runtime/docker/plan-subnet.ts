/** Choosing an address range for a node's network. Pure. */
import { createHash } from 'node:crypto'

interface Range {
  readonly first: number
  readonly last: number
}

/**
 * A subnet of `pool` with that prefix length that overlaps none of `used`; null when none is free. Each name begins its search at
 * a place of its own, so that agents which start together seldom meet; `attempt` moves on from there.
 */
export function chooseSubnet(
  pool: string,
  prefixLength: number,
  used: readonly string[],
  name: string,
  attempt: number,
): string | null {
  const whole = rangeOf(pool)
  if (whole === null || prefixLength < 8 || prefixLength > 30) return null
  const size = 2 ** (32 - prefixLength)
  const count = Math.floor((whole.last - whole.first + 1) / size)
  const taken = used.map(rangeOf).filter((range) => range !== null)
  const start = createHash('sha256').update(name).digest().readUInt32BE(0)
  for (let i = 0; i < count; i += 1) {
    const first = whole.first + ((start + attempt + i) % count) * size
    const last = first + size - 1
    if (taken.every((range) => range.last < first || range.first > last)) return `${textOf(first)}/${prefixLength}`
  }
  return null
}

/** The first host address of a subnet. */
export function gatewayOf(subnet: string): string {
  const range = rangeOf(subnet)
  return range === null ? '' : textOf(range.first + 1)
}

function rangeOf(cidr: string): Range | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(cidr)
  if (!match) return null
  const [a, b, c, d, prefix] = match.slice(1).map(Number)
  if (a === undefined || b === undefined || c === undefined || d === undefined || prefix === undefined) return null
  if (Math.max(a, b, c, d) > 255 || prefix > 32) return null
  const size = 2 ** (32 - prefix)
  const address = ((a * 256 + b) * 256 + c) * 256 + d
  const first = Math.floor(address / size) * size
  return { first, last: first + size - 1 }
}

function textOf(address: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256).join('.')
}
