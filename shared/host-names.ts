/** Which texts may stand for a host: in URLs, tables, events and routes as they are. Pure. */
import { isIPv6 } from 'node:net'

const HOST = /^[a-zA-Z0-9]([a-zA-Z0-9._-]*[a-zA-Z0-9])?$/
const MAX_LENGTH = 253

/** A host name, or an IPv4 address. */
export function isHostName(text: string): boolean {
  return text.length <= MAX_LENGTH && HOST.test(text)
}

/** A host name or an IP address of either family, without port and brackets. */
export function isHostAddress(text: string): boolean {
  return isHostName(text) || (isIPv6(text) && !text.includes('%'))
}

/**
 * An address that means whoever uses it, or what is next to him, rather than one certain host: loopback, unspecified,
 * link-local. Only literal addresses and `localhost` are known; what other names resolve to is not.
 */
export function isOwnHostAddress(text: string): boolean {
  const plain = text
    .toLowerCase()
    .replace(/^::ffff:(?=\d+\.)/, '')
    .replace(/\.$/, '')
  if (plain === 'localhost' || plain.endsWith('.localhost')) return true
  // Resolvers also take 127.1, 2130706433 and 0x7f000001 for addresses.
  if (/^(?:\d+|0x[0-9a-f]*)(?:\.(?:\d+|0x[0-9a-f]*)){0,3}$/.test(plain)) {
    if (!/^(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})$/.test(plain)) return true
    return /^(?:0|127)\.|^169\.254\./.test(plain)
  }
  if (!plain.includes(':')) return false
  return /^fe[89ab]/.test(plain) || /^[0:]*:?0*1?$/.test(plain) || plain.includes('ffff:') || /^64:ff9b:/.test(plain)
}
