/**
 * DNS over the embedded catalog (7653, UDP and TCP): A records of passing instances, SRV with their ports. Answers are
 * shuffled, have TTL 0 (what runs may change any moment), and are truncated by dns2 where UDP is too small.
 */
import DNS from 'dns2'
import { isIPv4 } from 'node:net'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { Random } from '../../shared/random.ts'
import type { Catalog, CatalogEntry } from './catalog.ts'
import { addressName, parseDnsName } from './dns-names.ts'

const { Packet } = DNS

/** Response codes (RFC 1035 §4.1.1); the library's types leave them out. */
const RCODE = { SERVFAIL: 2, NXDOMAIN: 3, REFUSED: 5 } as const

export interface DnsServerDeps {
  readonly catalog: Catalog
  readonly random: Random
  readonly logger: Logger
  readonly datacenter: string
  readonly host: string
  readonly port: number
}

export interface DnsServer {
  readonly port: number
  close(): Promise<void>
}

type Query = Parameters<Exclude<Parameters<typeof DNS.createServer>[0]['handle'], undefined>>[0]
type Answer = ReturnType<typeof Packet.createResponseFromRequest>

export async function startDnsServer(deps: DnsServerDeps): Promise<DnsServer> {
  const { logger } = deps
  const server = DNS.createServer({
    udp: true,
    tcp: true,
    handle: (request, send) => {
      let response: Answer
      try {
        response = answer(request, deps)
      } catch (error) {
        logger.warn('dns request failed', { error: messageOf(error) })
        response = Packet.createResponseFromRequest(request)
        response.header.rcode = RCODE.SERVFAIL
      }
      send(response)
    },
  })
  server.on('requestError', (error: unknown) => logger.debug('malformed dns request dropped', { error: messageOf(error) }))
  const failed = new Promise<never>((_, reject) => server.once('error', (error: Error) => reject(error)))
  const address = { address: deps.host, port: deps.port }
  await Promise.race([server.listen({ udp: address, tcp: address }), failed])
  server.on('error', (error: Error) => logger.warn('dns server error', { error: messageOf(error) }))
  return {
    port: server.addresses().udp?.port ?? deps.port,
    close: async () => {
      await server.close()
    },
  }
}

/** The response to one request. */
export function answer(request: Query, deps: Pick<DnsServerDeps, 'catalog' | 'random' | 'datacenter'>): Answer {
  const { catalog, datacenter } = deps
  const response = Packet.createResponseFromRequest(request)
  response.header.aa = 1
  const [question] = request.questions
  const name = question?.name ?? ''
  const type = question?.type ?? 0
  const asked = parseDnsName(name, datacenter)
  const a = (owner: string, address: string) =>
    new Packet.Resource({ name: owner, type: Packet.TYPE.A, class: Packet.CLASS.IN, ttl: 0, address })
  const wantsA = type === Packet.TYPE.A || type === Packet.TYPE.ANY

  switch (asked.kind) {
    case 'foreign':
      response.header.aa = 0
      response.header.rcode = RCODE.REFUSED
      return response
    case 'unknown':
      response.header.rcode = RCODE.NXDOMAIN
      return response
    case 'address':
      if (wantsA) response.answers.push(a(name, asked.address))
      return response
    case 'node': {
      const node = catalog
        .nodes()
        .find((candidate) => candidate.id === asked.node || candidate.hostname.toLowerCase() === asked.node)
      if (!node) response.header.rcode = RCODE.NXDOMAIN
      else if (wantsA && isIPv4(node.address)) response.answers.push(a(name, node.address))
      return response
    }
    case 'service': {
      const entries = findService(catalog, asked.service, asked.tag)
      if (entries.length === 0) {
        response.header.rcode = RCODE.NXDOMAIN
        return response
      }
      const passing = shuffled(
        entries.filter((entry) => entry.status === 'passing' && isIPv4(entry.address)),
        deps.random,
      )
      if (type === Packet.TYPE.SRV) {
        forbidNameCompression(response)
        for (const entry of passing)
          response.answers.push(
            new Packet.Resource({
              name,
              type: Packet.TYPE.SRV,
              class: Packet.CLASS.IN,
              ttl: 0,
              priority: 1,
              weight: 1,
              port: entry.port,
              target: addressName(entry.address, datacenter),
            }),
          )
        for (const address of new Set(passing.map((entry) => entry.address)))
          response.additionals.push(a(addressName(address, datacenter), address))
      } else if (wantsA)
        for (const address of new Set(passing.map((entry) => entry.address))) response.answers.push(a(name, address))
      return response
    }
  }
}

/**
 * RFC 2782 forbids compressed names as SRV targets and resolvers (c-ares) refuse them, but dns2 3.0 compresses every name. A
 * writer that already carries something other than a table of names makes it write them out.
 */
function forbidNameCompression(response: Answer): void {
  const encode = Packet.prototype.toBuffer
  response.toBuffer = () => Reflect.apply(encode, response, [Object.assign(new Packet.Writer(), { names: 'none' })]) as Buffer
}

/** DNS names are case-insensitive, service names are not: the exact name first, then one that differs only in case. */
function findService(catalog: Catalog, service: string, tag: string | null): readonly CatalogEntry[] {
  let entries = catalog.service(service)
  if (entries.length === 0)
    for (const name of catalog.services().keys()) if (name.toLowerCase() === service) entries = catalog.service(name)
  return tag === null ? entries : entries.filter((entry) => entry.tags.some((candidate) => candidate.toLowerCase() === tag))
}

function shuffled<T>(items: readonly T[], random: Random): readonly T[] {
  const result = [...items]
  for (let last = result.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random.next() * (last + 1))
    const swap = result[last] as T
    result[last] = result[other] as T
    result[other] = swap
  }
  return result
}
