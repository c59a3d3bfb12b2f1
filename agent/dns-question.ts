/** Reads the question of a DNS query. Pure. */

export interface DnsQuestion {
  /** Lower case, without the final dot. */
  readonly name: string
  /** 1 is A, 28 AAAA. */
  readonly type: number
  /** Offset after the question. */
  readonly end: number
}

/** The one question of a standard query, or null when the message is none. Names are not compressed there (RFC 1035 §4.1.4). */
export function parseDnsQuestion(message: Buffer): DnsQuestion | null {
  if (message.length < 17 || message.length > 4_096) return null
  const flags = message.readUInt16BE(2)
  // A response, or another operation than a query.
  if ((flags & 0xf800) !== 0 || message.readUInt16BE(4) !== 1) return null
  const labels: string[] = []
  let at = 12
  for (;;) {
    const length = message[at]
    if (length === undefined || length > 63) return null
    at += 1
    if (length === 0) break
    if (at + length > message.length || at - 12 > 254) return null
    labels.push(message.toString('latin1', at, at + length).toLowerCase())
    at += length
  }
  if (at + 4 > message.length) return null
  return { name: labels.join('.'), type: message.readUInt16BE(at), end: at + 4 }
}
