/**
 * Which addresses this node gives to services it can call. Pure. Several nodes may share one host, so each takes a slice that
 * follows from something only it has there: its bridge's subnet, or its own loopback address.
 */

/**
 * A CIDR. With a bridge (`subnet`, a.b.c.0/24): a /24 of 100.64.0.0/10 (RFC 6598: never routed on the internet) by its second and
 * third octet. Without one: a /25 of 127.128.0.0/9 by the node's 127.77.x.y address, else 127.96.0.0/16.
 */
export function meshSliceOf(subnet: string | null, nodeAddress: string): string {
  if (subnet !== null) {
    const [, second = 0, third = 0] = subnet.split('.').map(Number)
    return `100.${64 + (second % 64)}.${third}.0/24`
  }
  const local = /^127\.77\.(\d{1,3})\.(\d{1,3})$/.exec(nodeAddress)
  if (!local) return '127.96.0.0/16'
  const place = Number(local[1]) * 256 + Number(local[2])
  const first = place * 128
  return `127.${128 + Math.floor(first / 65_536)}.${Math.floor(first / 256) % 256}.${first % 256}/25`
}
