/**
 * What a DNS name asks of the catalog. Pure. Names, in Consul's form and in ours:
 *
 *   web.service.consul   blue.web.service.consul   _web._tcp.service.consul   h1.node.consul   0a4d000b.addr.dc1.consul
 *   web.rubato   web.shop.rubato
 *
 * A datacenter label before the domain is accepted as Consul does. A tag (or app) selects; `_tcp` as tag means none.
 */
export type DnsQuestion =
  | { readonly kind: 'service'; readonly service: string; readonly tag: string | null }
  | { readonly kind: 'node'; readonly node: string }
  | { readonly kind: 'address'; readonly address: string }
  /** A name of ours that cannot exist. */
  | { readonly kind: 'unknown' }
  /** Not our domain: refuse. */
  | { readonly kind: 'foreign' }

export function parseDnsName(name: string, datacenter: string): DnsQuestion {
  const labels = name.toLowerCase().replace(/\.$/, '').split('.')
  const domain = labels.pop()
  if (domain === 'rubato') {
    const [service, app, ...rest] = labels
    if (!service || rest.length > 0) return { kind: 'unknown' }
    return { kind: 'service', service, tag: app ?? null }
  }
  if (domain !== 'consul') return { kind: 'foreign' }
  if (labels.at(-1) === datacenter.toLowerCase()) labels.pop()
  const type = labels.pop()
  if (type === 'node' && labels.length > 0) return { kind: 'node', node: labels.join('.') }
  if (type === 'addr' && labels.length === 1) return addressOf(labels[0] ?? '')
  if (type !== 'service' || labels.length === 0) return { kind: 'unknown' }
  const [first, second] = labels
  if (labels.length === 2 && first?.startsWith('_') && second?.startsWith('_')) {
    const tag = second.slice(1)
    return { kind: 'service', service: first.slice(1), tag: tag === 'tcp' || tag === 'udp' ? null : tag }
  }
  const service = labels.pop() ?? ''
  return { kind: 'service', service, tag: labels.length > 0 ? labels.join('.') : null }
}

/** The name under which `address` itself resolves: the target of SRV records. */
export function addressName(address: string, datacenter: string): string {
  const parts = address.split('.').map(Number)
  const hex = parts.map((part) => part.toString(16).padStart(2, '0')).join('')
  return `${hex}.addr.${datacenter}.consul`
}

function addressOf(hex: string): DnsQuestion {
  if (!/^[0-9a-f]{8}$/.test(hex)) return { kind: 'unknown' }
  return { kind: 'address', address: [0, 2, 4, 6].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)).join('.') }
}
