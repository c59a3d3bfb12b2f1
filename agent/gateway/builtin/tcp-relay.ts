/**
 * Plain TCP through the gateway. Between gateways the first line may be `RUBATO-PROOF <proof>` and a line feed: it says which service
 * calls. The ingress of a service that is not public takes nothing before it; that of a public one connects at once (some
 * protocols let the server speak first) and removes the line when it comes.
 */
import { connect, type Socket } from 'node:net'
import type { Clock, Timer } from '../../../shared/clock.ts'
import type { Connection } from './listener.ts'
import { endTrack, type Track } from './track.ts'

const PREAMBLE = Buffer.from('RUBATO-PROOF ')
const MAX_PREAMBLE_BYTES = 1_200

export function preambleOf(proof: string): string {
  return `RUBATO-PROOF ${proof}\n`
}

/** What the first bytes of a connection are. */
export type Opening =
  | { readonly kind: 'more' }
  | { readonly kind: 'none' }
  | { readonly kind: 'proof'; readonly proof: string; readonly rest: Buffer }

function readOpening(bytes: Buffer): Opening {
  const common = Math.min(bytes.length, PREAMBLE.length)
  if (bytes.compare(PREAMBLE, 0, common, 0, common) !== 0) return { kind: 'none' }
  const end = bytes.indexOf(10)
  if (end < 0) return bytes.length > MAX_PREAMBLE_BYTES ? { kind: 'none' } : { kind: 'more' }
  return { kind: 'proof', proof: bytes.toString('latin1', PREAMBLE.length, end).trimEnd(), rest: bytes.subarray(end + 1) }
}

export interface RelayTarget {
  readonly address: string
  readonly port: number
  /** Sent first; null for nothing. */
  readonly preamble: string | null
  readonly tracks: readonly Track[]
  /** Another place, after this one could not be reached. */
  retry(): RelayTarget | null
}

export type RelayDecision = { readonly kind: 'relay'; readonly target: RelayTarget } | { readonly kind: 'deny' }

export interface RelayHandler {
  /** Decides without a proof; `undecided` asks to read one first. `stripProof`: a proof that comes nevertheless is removed. */
  open(peerAddress: string): RelayDecision | { readonly kind: 'undecided' }
  /** Decides with what the connection began with; null when that was no proof. */
  openWith(peerAddress: string, proof: string | null): RelayDecision
  readonly stripProof: boolean
}

export interface RelayDeps {
  readonly clock: Clock
  readonly connectTimeoutMs: number
  readonly openingTimeoutMs: number
}

/** Serves one accepted connection until it closes. `closed` is called once. */
export function serveTcp(
  client: Socket,
  peerAddress: string,
  handler: RelayHandler,
  deps: RelayDeps,
  closed: (connection: Connection) => void,
): Connection {
  let upstream: Socket | null = null
  let target: RelayTarget | null = null
  let timer: Timer | null = null
  let stripping = handler.stripProof
  let opening: Buffer | null = null
  let over = false
  const connection: Connection = { drain() {}, destroy: () => client.destroy() }

  client.on('error', noop)
  client.on('close', () => {
    if (over) return
    over = true
    timer?.cancel()
    upstream?.destroy()
    endTracks()
    closed(connection)
  })

  const decision = handler.open(peerAddress)
  if (decision.kind === 'relay') attempt(decision.target)
  else if (decision.kind === 'deny') client.destroy()
  else readFirst()
  return connection

  function readFirst(): void {
    timer = deps.clock.setTimer(deps.openingTimeoutMs, () => client.destroy())
    const onData = (chunk: Buffer) => {
      opening = opening === null ? chunk : Buffer.concat([opening, chunk])
      const found = readOpening(opening)
      if (found.kind === 'more') return
      timer?.cancel()
      client.off('data', onData)
      client.pause()
      const next = handler.openWith(peerAddress, found.kind === 'proof' ? found.proof : null)
      if (next.kind !== 'relay') return void client.destroy()
      stripping = false
      opening = found.kind === 'proof' && found.rest.length > 0 ? found.rest : null
      attempt(next.target)
    }
    client.on('data', onData)
    client.on('end', () => {
      if (upstream === null) client.destroy()
    })
  }

  function attempt(next: RelayTarget): void {
    target = next
    for (const track of next.tracks) {
      track.inFlight += 1
      track.requests += 1
    }
    client.pause()
    const socket = connect({ host: next.address, port: next.port, noDelay: true, keepAlive: true, allowHalfOpen: true })
    upstream = socket
    let connected = false
    timer = deps.clock.setTimer(deps.connectTimeoutMs, () => socket.destroy())
    socket.on('connect', () => {
      connected = true
      timer?.cancel()
      for (const track of next.tracks) track.connectFailures = 0
      if (next.preamble !== null) socket.write(next.preamble, 'latin1')
      if (opening !== null) socket.write(opening)
      opening = null
      join(socket, next)
    })
    socket.on('error', noop)
    socket.on('close', () => {
      timer?.cancel()
      if (over) return
      if (connected) return void client.destroySoon()
      for (const track of next.tracks) track.connectFailures += 1
      endTracks()
      const other = next.retry()
      if (other !== null) return attempt(other)
      for (const track of next.tracks) track.errors += 1
      client.destroy()
    })
  }

  function join(socket: Socket, next: RelayTarget): void {
    client.on('data', (chunk: Buffer) => {
      let bytes: Buffer = chunk
      if (stripping) {
        if (opening !== null) bytes = Buffer.concat([opening, chunk])
        const found = readOpening(bytes)
        if (found.kind === 'more') {
          opening = bytes
          return
        }
        opening = null
        stripping = false
        if (found.kind === 'proof') bytes = found.rest
        if (bytes.length === 0) return
      }
      for (const track of next.tracks) track.rxBytes += bytes.length
      if (!socket.write(bytes)) client.pause()
    })
    socket.on('data', (chunk: Buffer) => {
      for (const track of next.tracks) track.txBytes += chunk.length
      if (!client.write(chunk)) socket.pause()
    })
    client.on('drain', () => socket.resume())
    socket.on('drain', () => client.resume())
    client.on('end', () => {
      if (opening !== null) socket.write(opening)
      opening = null
      socket.end()
    })
    socket.on('end', () => client.end())
    client.resume()
  }

  function endTracks(): void {
    const ended = target
    target = null
    if (ended !== null) for (const track of ended.tracks) endTrack(track)
  }
}

function noop(): void {}
