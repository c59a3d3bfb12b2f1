/**
 * Names for containers: `web` (of the caller's own app), `web.app` and `web.app.rubato` are the service's virtual address on this
 * node; every other name is asked of the host's own resolvers. UDP on the bridge address; A records only, with a TTL of 5 s.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { isIPv6 } from 'node:net'
import type { Clock } from '../shared/clock.ts'
import { ConflictError, messageOf, RetryableError } from '../shared/errors.ts'
import type { Logger } from '../shared/logger.ts'
import { parseDnsQuestion } from './dns-question.ts'

export interface AgentDnsDeps {
  /** The bridge's address. */
  readonly address: string
  /** Default in production: 53. 0 lets the system choose. */
  readonly port: number
  /** App of the container with this source address; null for anybody else. */
  readonly appOf: (address: string) => string | null
  /** Virtual address of `app/service`, or null. */
  readonly virtualAddressOf: (service: string) => string | null
  /** Resolvers of the host, in order; none: other names do not resolve. */
  readonly resolvers: readonly { readonly address: string; readonly port: number }[]
  readonly clock: Clock
  readonly logger: Logger
}

export interface AgentDns {
  readonly port: number
  stop(): Promise<void>
}

const TTL_S = 5
const FORWARD_TIMEOUT_MS = 2_000
/** Questions under way at the resolvers; more are answered with SERVFAIL. */
const MAX_FORWARDED = 512
/** So long a question from a container that nobody knows yet is held back. */
const UNKNOWN_CALLER_MS = 500
const UNKNOWN_CALLER_STEP_MS = 50
const RCODE = { ok: 0, serverFailure: 2, noSuchName: 3 } as const

/** Starts it. Rejects with ConflictError when the port is taken, with RetryableError when it cannot be bound. */
export async function createAgentDns(deps: AgentDnsDeps): Promise<AgentDns> {
  const server = createSocket(isIPv6(deps.address) ? 'udp6' : 'udp4')
  /** Ends of what is under way. */
  const forwarded = new Set<() => void>()

  const reply = (message: Buffer, to: RemoteInfo): void => {
    server.send(message, to.port, to.address, (error) => {
      if (error) deps.logger.debug('DNS answer was not sent', { error: messageOf(error) })
    })
  }

  const serviceAddress = (name: string, source: string): string | null => {
    const labels = name.split('.')
    if (labels.at(-1) === 'rubato') labels.pop()
    const app = deps.appOf(source)
    // The own app comes first; service names may hold dots themselves.
    const own = app === null ? null : deps.virtualAddressOf(`${app}/${labels.join('.')}`)
    if (own !== null || labels.length < 2) return own
    return deps.virtualAddressOf(`${labels.at(-1)}/${labels.slice(0, -1).join('.')}`)
  }

  const forward = (query: Buffer, questionEnd: number, from: RemoteInfo, attempt: number): void => {
    const resolver = deps.resolvers[attempt]
    if (resolver === undefined || forwarded.size >= MAX_FORWARDED) {
      reply(answerOf(query, questionEnd, RCODE.serverFailure, null), from)
      return
    }
    const socket: Socket = createSocket(isIPv6(resolver.address) ? 'udp6' : 'udp4')
    const end = () => {
      if (!forwarded.delete(end)) return false
      timer.cancel()
      socket.close()
      return true
    }
    const next = () => {
      if (end()) forward(query, questionEnd, from, attempt + 1)
    }
    const timer = deps.clock.setTimer(FORWARD_TIMEOUT_MS, next)
    forwarded.add(end)
    socket.on('error', next)
    socket.on('message', (message) => {
      // Only what answers this question; the socket is connected, so it comes from that resolver.
      if (message.length < 12 || message.readUInt16BE(0) !== query.readUInt16BE(0)) return
      if (end()) reply(message, from)
    })
    socket.connect(resolver.port, resolver.address, () => socket.send(query))
  }

  const answer = (query: Buffer, from: RemoteInfo, waitedMs: number): void => {
    const question = parseDnsQuestion(query)
    if (question === null) return // not even worth an answer: it could be aimed at somebody else
    if (deps.appOf(from.address) === null && waitedMs < UNKNOWN_CALLER_MS && forwarded.size < MAX_FORWARDED) {
      // It may have started a moment ago: whose container it is will be known at once.
      const end = () => {
        forwarded.delete(end)
        timer.cancel()
      }
      const timer = deps.clock.setTimer(UNKNOWN_CALLER_STEP_MS, () => {
        end()
        answer(query, from, waitedMs + UNKNOWN_CALLER_STEP_MS)
      })
      forwarded.add(end)
      return
    }
    const address = serviceAddress(question.name, from.address)
    if (address !== null) {
      // AAAA and others of a name that we own: no data, so that the client takes the A record.
      reply(answerOf(query, question.end, RCODE.ok, question.type === 1 ? address : null), from)
    } else if (question.name.endsWith('.rubato')) reply(answerOf(query, question.end, RCODE.noSuchName, null), from)
    else forward(query, question.end, from, 0)
  }
  server.on('message', (query, from) => answer(query, from, 0))

  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') reject(new ConflictError(`udp port ${deps.port} of ${deps.address} is taken`, error))
      else reject(new RetryableError(`cannot bind DNS on ${deps.address}:${deps.port}`, { cause: error }))
    })
    server.bind({ address: deps.address, port: deps.port, exclusive: true }, () => {
      server.removeAllListeners('error')
      server.on('error', (error) => deps.logger.warn('DNS socket failed', { error: messageOf(error) }))
      resolve(server.address().port)
    })
  })
  return {
    port,
    async stop() {
      for (const end of [...forwarded]) end()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** A response to `query`, whose question ends at `questionEnd`, with one A record or none. */
function answerOf(query: Buffer, questionEnd: number, rcode: number, address: string | null): Buffer {
  const head = Buffer.from(query.subarray(0, questionEnd))
  const recursionDesired = query.readUInt16BE(2) & 0x0100
  head.writeUInt16BE(0x8080 | recursionDesired | (rcode !== RCODE.serverFailure ? 0x0400 : 0) | rcode, 2)
  head.writeUInt16BE(questionEnd > 12 ? 1 : 0, 4)
  head.writeUInt16BE(address === null ? 0 : 1, 6)
  head.writeUInt32BE(0, 8)
  if (address === null) return head
  const record = Buffer.alloc(16)
  record.writeUInt16BE(0xc00c, 0)
  record.writeUInt16BE(1, 2)
  record.writeUInt16BE(1, 4)
  record.writeUInt32BE(TTL_S, 6)
  record.writeUInt16BE(4, 10)
  for (const [index, part] of address.split('.').entries()) record[12 + index] = Number(part)
  return Buffer.concat([head, record])
}

/** Resolvers in the text of a resolv.conf. */
export function parseResolvers(text: string): readonly { readonly address: string; readonly port: number }[] {
  return [...text.matchAll(/^\s*nameserver\s+([0-9a-fA-F.:]+)\s*$/gm)].map((match) => ({ address: match[1] as string, port: 53 }))
}
