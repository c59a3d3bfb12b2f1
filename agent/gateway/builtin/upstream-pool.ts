/** Kept-open connections to containers and to other gateways. One exchange at a time uses one. */
import { connect, type Socket } from 'node:net'

/** Who uses a connection at the moment; its events go there. */
export interface UpstreamOwner {
  onConnect(): void
  onData(chunk: Buffer): void
  onDrain(): void
  /** The other side ended its half. */
  onEnd(): void
  /** Gone for good; called once, and never after release or discard. */
  onClose(): void
}

export interface Upstream {
  readonly socket: Socket
  readonly target: string
  connected: boolean
  /** An earlier exchange used it: the other side may have closed it just now. */
  reused: boolean
  owner: UpstreamOwner | null
  idleSinceMs: number
  idleUntilMs: number
}

export interface UpstreamPool {
  /** A connection to `address:port`: kept open from before if used within `maxIdleMs`, or just being made. */
  lease(address: string, port: number, owner: UpstreamOwner, maxIdleMs: number): Upstream
  /** Gives it back for the next exchange, for at most `keepMs`. */
  release(upstream: Upstream, keepMs: number): void
  discard(upstream: Upstream): void
  /** Closes what was idle for too long. */
  sweep(nowMs: number): void
  close(): void
}

const MAX_IDLE_PER_TARGET = 64

export function createUpstreamPool(nowMs: () => number): UpstreamPool {
  const idle = new Map<string, Upstream[]>()
  const all = new Set<Upstream>()

  const open = (address: string, port: number, target: string): Upstream => {
    const socket = connect({ host: address, port, noDelay: true, keepAlive: true, allowHalfOpen: true })
    const upstream: Upstream = { socket, target, connected: false, reused: false, owner: null, idleSinceMs: 0, idleUntilMs: 0 }
    all.add(upstream)
    socket.on('connect', () => {
      upstream.connected = true
      upstream.owner?.onConnect()
    })
    socket.on('data', (chunk: Buffer) => {
      if (upstream.owner !== null) upstream.owner.onData(chunk)
      else drop(upstream) // an answer nobody asked for
    })
    socket.on('drain', () => upstream.owner?.onDrain())
    socket.on('end', () => {
      if (upstream.owner !== null) upstream.owner.onEnd()
      else drop(upstream)
    })
    socket.on('error', noop) // `close` follows and tells the owner
    socket.on('close', () => {
      all.delete(upstream)
      const owner = upstream.owner
      if (owner === null) return forget(upstream)
      upstream.owner = null
      owner.onClose()
    })
    return upstream
  }

  const forget = (upstream: Upstream) => {
    const list = idle.get(upstream.target)
    const index = list?.indexOf(upstream) ?? -1
    if (list === undefined || index < 0) return
    list.splice(index, 1)
    if (list.length === 0) idle.delete(upstream.target)
  }

  const drop = (upstream: Upstream) => {
    forget(upstream)
    upstream.owner = null
    all.delete(upstream)
    upstream.socket.destroy()
  }

  return {
    lease(address, port, owner, maxIdleMs) {
      const target = `${address} ${port}`
      const list = maxIdleMs > 0 ? idle.get(target) : undefined
      const now = nowMs()
      while (list !== undefined && list.length > 0) {
        // The one used last is the least likely to be closed by now.
        const upstream = list.pop() as Upstream
        if (now - upstream.idleSinceMs > maxIdleMs) {
          list.push(upstream)
          break
        }
        if (upstream.socket.destroyed || upstream.idleUntilMs < now) {
          drop(upstream)
          continue
        }
        upstream.owner = owner
        return upstream
      }
      const upstream = open(address, port, target)
      upstream.owner = owner
      return upstream
    },
    release(upstream, keepMs) {
      upstream.owner = null
      let list = idle.get(upstream.target)
      if (list === undefined) {
        list = []
        idle.set(upstream.target, list)
      }
      if (upstream.socket.destroyed || list.length >= MAX_IDLE_PER_TARGET) return drop(upstream)
      upstream.reused = true
      upstream.idleSinceMs = nowMs()
      upstream.idleUntilMs = upstream.idleSinceMs + keepMs
      upstream.socket.resume()
      list.push(upstream)
    },
    discard: drop,
    sweep(now) {
      for (const list of [...idle.values()]) for (const upstream of [...list]) if (upstream.idleUntilMs < now) drop(upstream)
    },
    close() {
      for (const upstream of [...all]) drop(upstream)
      idle.clear()
    },
  }
}

function noop(): void {}
