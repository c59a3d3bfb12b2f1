/**
 * A network in memory, under virtual time: dialers for nodes, one listener per coordinator address. Latency is drawn from a
 * seed; messages of one connection keep their order, as TCP does. Levers: cut one node off, drop its connections, make a link
 * half-open (nothing arrives, nobody is told), refuse dials, delay. What the real websocket promises is kept: a peer from which
 * nothing came is declared dead after 25 s, and pings tell how late all that was sent has arrived.
 */
import type { Clock, Timer } from '../../shared/clock.ts'
import type { Random } from '../../shared/random.ts'
import type { Connection, Dialer } from '../../shared/protocol/connection.ts'
import { MAX_FRAME_BYTES } from '../../shared/protocol/frames.ts'
import { DEAD_AFTER_MS, PING_INTERVAL_MS } from '../../shared/protocol/websocket-connection.ts'

export interface ModelNetworkOptions {
  readonly clock: Clock
  readonly random: Random
  /** One-way latency is uniform in [min, max). Default 1–5 ms. */
  readonly latencyMs?: readonly [number, number]
}

/** What a coordinator offers at its address. */
export interface ModelListener {
  authenticate(credential: string): string | null
  accept(connection: Connection, nodeId: string): void
}

export interface NetworkTrace {
  readonly atMs: number
  readonly from: string
  readonly to: string
  readonly text: string
}

export interface ModelNetwork {
  /** Opens `url` for dialing; returns how to close it (connections through it break). */
  listen(url: string, listener: ModelListener): () => void
  /** The dialer of the host `name`, whose clock (default: the world's) tells when its pings were sent. */
  dialer(name: string, clock?: Pick<Clock, 'monotonicMs'>): Dialer
  /** Nothing passes to or from `name`, and nobody is told: connections die after 25 s, dials hang until they time out (10 s). */
  partition(name: string): void
  heal(name: string): void
  /** Ends all connections of `name` with 1006, on both ends, at once. Returns how many. */
  drop(name: string): number
  /** The process behind `name` was killed: what it had sent arrives yet, then the other ends are told. Nothing reaches it any more. */
  die(name: string): void
  /** Messages in one direction of `name`'s present connections vanish; both ends notice after 25 s. */
  halfOpen(name: string, direction: 'up' | 'down'): void
  /** As `halfOpen`, and dials of `name` get no answer either, until it is healed. */
  cutOneWay(name: string, direction: 'up' | 'down'): void
  /** `name` gets no connection to that address any more, and loses the one it has; null ends it. */
  block(name: string, url: string | null): void
  /** Messages to and from `name` take up to so much longer; 0 ends it. */
  slow(name: string, upToMs: number): void
  /** The next message to `name` is lost although the connection stays: what no TCP does, but a bug could. */
  loseNext(name: string, direction: 'up' | 'down'): void
  /** The next message to or from `name` arrives twice. */
  duplicateNext(name: string, direction: 'up' | 'down'): void
  /** Whatever was to be lost or doubled next, and has not been, arrives once after all. */
  tamperNoMore(name: string): void
  /** Lets a test watch every delivered message. */
  onDelivered(listener: (trace: NetworkTrace) => void): void
  readonly dials: readonly { readonly atMs: number; readonly from: string; readonly url: string }[]
  connectionsOf(name: string): number
  /** Exactly one connection, through which everything arrives in time and everything has arrived. */
  isCalm(name: string): boolean
  /** Sends `text` as if `name` had, on its newest connection. */
  forge(name: string, text: string): void
}

type Direction = 'up' | 'down'

interface Link {
  readonly name: string
  readonly url: string
  readonly ends: Record<Direction, End>
  readonly deaf: Set<Direction>
  lose: Record<Direction, number>
  /** A message was lost on it. */
  tampered: boolean
  duplicate: Record<Direction, number>
  /** When the last message in this direction arrives: later ones never overtake it. */
  readonly busyUntilMs: Record<Direction, number>
  /** What a partition holds back; TCP sends it again when the partition heals in time. */
  readonly held: { readonly direction: Direction; readonly text: string }[]
  deathTimer: Timer | null
  /** The clock of the host. */
  readonly clock: Pick<Clock, 'monotonicMs'>
  answeredMs: number | null
  open: boolean
}

/** One end; messages in its direction arrive at the other end's handlers. */
interface End {
  onMessage: ((text: string) => void) | null
  onClose: ((code: number, reason: string) => void) | null
  readonly early: string[]
  closed: { code: number; reason: string } | null
}

const DIAL_TIMEOUT_MS = 10_000

export function modelNetwork(options: ModelNetworkOptions): ModelNetwork {
  const { clock, random } = options
  const [minMs, maxMs] = options.latencyMs ?? [1, 5]
  const listeners = new Map<string, ModelListener>()
  const partitioned = new Set<string>()
  const oneWay = new Set<string>()
  const slowed = new Map<string, number>()
  const blocked = new Map<string, string>()
  const links = new Map<string, Set<Link>>()
  const watchers: ((trace: NetworkTrace) => void)[] = []
  const dials: { atMs: number; from: string; url: string }[] = []

  const latency = (name: string) => minMs + random.next() * (maxMs - minMs + (slowed.get(name) ?? 0))
  const linksOf = (name: string) => links.get(name) ?? new Set<Link>()

  const closeEnd = (end: End, code: number, reason: string) => {
    if (end.closed) return
    end.closed = { code, reason }
    end.onClose?.(code, reason)
  }
  const breakLink = (link: Link, code: number, reason: string) => {
    if (!link.open) return
    link.open = false
    link.deathTimer?.cancel()
    links.get(link.name)?.delete(link)
    closeEnd(link.ends.up, code, reason)
    closeEnd(link.ends.down, code, reason)
  }
  /** One end's process is dead: it hears nothing any more, and the other is told once it has got what was on its way. */
  const abandon = (link: Link, dead: Direction, reason: string) => {
    link.ends[dead].closed = { code: 1006, reason }
    clock.setTimer(Math.max(0, link.busyUntilMs[dead] - clock.monotonicMs()), () => {
      if (link.deaf.has(dead) || partitioned.has(link.name)) return doom(link)
      breakLink(link, 1006, reason)
    })
  }
  const doom = (link: Link) => {
    link.deathTimer ??= clock.setTimer(DEAD_AFTER_MS, () => breakLink(link, 1006, 'nothing heard for 25 s'))
  }
  const reprieve = (link: Link) => {
    if (link.deaf.size > 0 || link.ends.up.closed || link.ends.down.closed) return
    link.deathTimer?.cancel()
    link.deathTimer = null
  }

  const passes = (link: Link, direction: Direction) => {
    const receiver = link.ends[direction === 'up' ? 'down' : 'up']
    return link.open && !receiver.closed && !link.deaf.has(direction) && !partitioned.has(link.name)
  }
  /** Behind what was sent before, as any frame; unlike those it draws nothing from the seed. */
  const arrive = (link: Link, direction: Direction, then: () => void) => {
    const delayMs = Math.max(minMs, link.busyUntilMs[direction] - clock.monotonicMs())
    clock.setTimer(delayMs, () => {
      if (passes(link, direction)) then()
    })
  }
  const keepPinging = (link: Link) => {
    clock.setTimer(PING_INTERVAL_MS, () => {
      if (!link.open || link.ends.up.closed) return
      const sentMs = link.clock.monotonicMs()
      arrive(link, 'up', () =>
        arrive(link, 'down', () => {
          link.answeredMs = Math.max(link.answeredMs ?? 0, sentMs)
        }),
      )
      keepPinging(link)
    })
  }

  const deliver = (link: Link, direction: Direction, text: string) => {
    const receiver = link.ends[direction === 'up' ? 'down' : 'up']
    if (!link.open || receiver.closed || link.deaf.has(direction)) return
    if (partitioned.has(link.name)) return void link.held.push({ direction, text })
    const [from, to] = direction === 'up' ? [link.name, link.url] : [link.url, link.name]
    for (const watch of watchers) watch({ atMs: clock.monotonicMs(), from, to, text })
    if (receiver.onMessage) receiver.onMessage(text)
    else receiver.early.push(text)
  }
  const transmit = (link: Link, direction: Direction, text: string) => {
    if (Buffer.byteLength(text) > MAX_FRAME_BYTES) return breakLink(link, 1009, 'frame too large')
    if (link.lose[direction] > 0) {
      link.lose[direction] -= 1
      link.tampered = true
      return
    }
    const copies = link.duplicate[direction] > 0 ? 2 : 1
    if (copies === 2) link.duplicate[direction] -= 1
    for (let copy = 0; copy < copies; copy += 1) {
      const arrivesMs = Math.max(link.busyUntilMs[direction], clock.monotonicMs() + latency(link.name))
      link.busyUntilMs[direction] = arrivesMs
      clock.setTimer(arrivesMs - clock.monotonicMs(), () => deliver(link, direction, text))
    }
  }

  const endOf = (link: Link, direction: Direction): Connection => {
    const mine = link.ends[direction]
    return {
      send(text) {
        if (link.open && !mine.closed) transmit(link, direction, text)
      },
      bufferedBytes: () => 0,
      // Only agents ask.
      answeredMs: () => (direction === 'up' ? link.answeredMs : null),
      close(code, reason) {
        if (mine.closed) return
        closeEnd(mine, code, reason)
        const other = link.ends[direction === 'up' ? 'down' : 'up']
        const arrivesMs = Math.max(link.busyUntilMs[direction], clock.monotonicMs() + latency(link.name))
        clock.setTimer(arrivesMs - clock.monotonicMs(), () => {
          if (link.deaf.has(direction) || partitioned.has(link.name)) return
          closeEnd(other, code, reason)
          breakLink(link, code, reason)
        })
        doom(link)
      },
      onMessage(handler) {
        mine.onMessage = handler
        for (const text of mine.early.splice(0)) handler(text)
      },
      onClose(handler) {
        mine.onClose = handler
        if (mine.closed) handler(mine.closed.code, mine.closed.reason)
      },
    }
  }

  const connect = (name: string, url: string, hostClock: Pick<Clock, 'monotonicMs'>): Link => {
    const end = (): End => ({ onMessage: null, onClose: null, early: [], closed: null })
    const link: Link = {
      name,
      url,
      ends: { up: end(), down: end() },
      deaf: new Set(),
      lose: { up: 0, down: 0 },
      tampered: false,
      duplicate: { up: 0, down: 0 },
      busyUntilMs: { up: 0, down: 0 },
      held: [],
      deathTimer: null,
      clock: hostClock,
      answeredMs: null,
      open: true,
    }
    keepPinging(link)
    const group = links.get(name) ?? new Set()
    group.add(link)
    links.set(name, group)
    return link
  }

  return {
    dials,
    listen(url, listener) {
      listeners.set(url, listener)
      return () => {
        if (listeners.get(url) !== listener) return
        listeners.delete(url)
        for (const group of [...links.values()])
          for (const link of [...group]) if (link.url === url) abandon(link, 'down', 'the coordinator is gone')
      }
    },
    dialer: (name, hostClock = clock) => ({
      dial(url, credential, signal) {
        dials.push({ atMs: clock.monotonicMs(), from: name, url })
        return new Promise((resolve) => {
          const timeout = clock.setTimer(DIAL_TIMEOUT_MS, () => resolve({ kind: 'failed', detail: 'no answer' }))
          signal.addEventListener('abort', () => {
            timeout.cancel()
            resolve({ kind: 'failed', detail: 'cancelled' })
          })
          clock.setTimer(latency(name) * 2, () => {
            if (partitioned.has(name) || oneWay.has(name) || signal.aborted) return
            timeout.cancel()
            const listener = listeners.get(url)
            if (!listener || blocked.get(name) === url) return resolve({ kind: 'failed', detail: 'connection refused' })
            const nodeId = listener.authenticate(credential)
            if (nodeId === null) return resolve({ kind: 'rejected', status: 401, detail: 'the coordinator answered 401' })
            const link = connect(name, url, hostClock)
            listener.accept(endOf(link, 'down'), nodeId)
            resolve({ kind: 'open', connection: endOf(link, 'up') })
          })
        })
      },
    }),
    partition(name) {
      partitioned.add(name)
      for (const link of linksOf(name)) doom(link)
    },
    die(name) {
      for (const link of [...linksOf(name)]) abandon(link, 'up', 'the agent is gone')
    },
    heal(name) {
      partitioned.delete(name)
      oneWay.delete(name)
      for (const link of linksOf(name)) {
        reprieve(link)
        for (const { direction, text } of link.held.splice(0)) transmit(link, direction, text)
      }
    },
    drop(name) {
      const all = [...linksOf(name)]
      for (const link of all) breakLink(link, 1006, 'connection reset')
      return all.length
    },
    halfOpen(name, direction) {
      for (const link of linksOf(name)) {
        link.deaf.add(direction)
        doom(link)
      }
    },
    cutOneWay(name, direction) {
      oneWay.add(name)
      this.halfOpen(name, direction)
    },
    block(name, url) {
      if (url === null) blocked.delete(name)
      else blocked.set(name, url)
      for (const link of [...linksOf(name)]) if (link.url === url) breakLink(link, 1006, 'no route to host')
    },
    slow(name, upToMs) {
      slowed.set(name, upToMs)
    },
    loseNext(name, direction) {
      for (const link of linksOf(name)) link.lose[direction] += 1
    },
    duplicateNext(name, direction) {
      for (const link of linksOf(name)) link.duplicate[direction] += 1
    },
    tamperNoMore(name) {
      for (const link of linksOf(name)) {
        link.lose = { up: 0, down: 0 }
        link.duplicate = { up: 0, down: 0 }
      }
    },
    onDelivered: (listener) => void watchers.push(listener),
    isCalm(name) {
      const [link, ...others] = [...linksOf(name)]
      if (!link || others.length > 0 || partitioned.has(name) || oneWay.has(name) || (slowed.get(name) ?? 0) > 0) return false
      return !link.tampered && link.deaf.size === 0 && !link.ends.up.closed && !link.ends.down.closed
    },
    connectionsOf: (name) => linksOf(name).size,
    forge(name, text) {
      const link = [...linksOf(name)].at(-1)
      if (link) transmit(link, 'up', text)
    },
  }
}
