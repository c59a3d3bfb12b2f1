/**
 * One connection of one agent, from its acceptance to its end: hello first, then frames. Knows no other node; what frames mean
 * is the hub's (`SessionEvents`). A session that misbehaves is closed; it never throws.
 */
import type { Clock, Timer } from '../../shared/clock.ts'
import type { Logger } from '../../shared/logger.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { Connection } from '../../shared/protocol/connection.ts'
import { type AgentFrame, CLOSE, type HelloFrame, PROTOCOL_MAJOR } from '../../shared/protocol/frames.ts'
import { parseAgentFrame } from '../../shared/protocol/parse-frames.ts'

/** An authenticated peer that says nothing holds a place that another may need. */
const HELLO_TIMEOUT_MS = 10_000
/** Frames per second that an agent may send for long, and at once. A busy one sends a few. */
const FRAMES_PER_S = 300
const FRAME_BURST = 3000
/** Bytes that may wait for a slow agent. */
const MAX_BUFFERED_BYTES = 8 * 1_048_576

export interface SessionCounters {
  framesIn: number
  bytesIn: number
  framesOut: number
  bytesOut: number
  unknownFrames: number
  badFrames: number
  tooMany: number
  slow: number
}

export interface SessionEvents {
  /** Returns whether the session may go on; the hub closes it otherwise. */
  hello(session: Session, hello: HelloFrame): boolean
  /** Any frame after the hello, before it is handled. */
  seen(session: Session): void
  frame(session: Session, frame: Exclude<AgentFrame, HelloFrame>): void
  closed(session: Session, code: number, reason: string): void
}

export interface Session {
  readonly nodeId: NodeId
  readonly phase: 'greeting' | 'open' | 'closed'
  send(text: string): void
  bufferedBytes(): number
  close(code: number, reason: string): void
}

export function openSession(
  connection: Connection,
  nodeId: NodeId,
  deps: { readonly clock: Clock; readonly logger: Logger; readonly counters: SessionCounters; readonly events: SessionEvents },
): Session {
  const { clock, counters, events } = deps
  let phase: Session['phase'] = 'greeting'
  let tokens = FRAME_BURST
  let refilledMs = clock.monotonicMs()
  const helloTimer: Timer = clock.setTimer(HELLO_TIMEOUT_MS, () => {
    if (phase === 'greeting') session.close(CLOSE.badFrame, 'no hello')
  })

  const end = (code: number, reason: string) => {
    if (phase === 'closed') return
    phase = 'closed'
    helloTimer.cancel()
    events.closed(session, code, reason)
  }
  const bad = (detail: string) => {
    counters.badFrames += 1
    deps.logger.warn('an agent sent a bad frame', { nodeId, detail })
    session.close(CLOSE.badFrame, detail)
  }
  const withinRate = () => {
    const nowMs = clock.monotonicMs()
    tokens = Math.min(FRAME_BURST, tokens + ((nowMs - refilledMs) / 1000) * FRAMES_PER_S)
    refilledMs = nowMs
    tokens -= 1
    return tokens >= 0
  }
  const take = (text: string) => {
    if (phase === 'closed') return
    counters.framesIn += 1
    counters.bytesIn += text.length
    if (!withinRate()) {
      counters.tooMany += 1
      return session.close(CLOSE.tooMany, 'too many frames')
    }
    const parsed = parseAgentFrame(text)
    if (parsed.kind === 'otherMajor')
      return session.close(CLOSE.wrongMajor, `protocol ${parsed.major}, this coordinator speaks ${PROTOCOL_MAJOR}`)
    if (parsed.kind === 'bad') return bad(parsed.detail)
    if (parsed.kind === 'unknown') {
      counters.unknownFrames += 1
      if (phase === 'open') events.seen(session)
      return
    }
    const { frame } = parsed
    if (frame.type === 'hello') {
      if (phase !== 'greeting') return bad('a second hello')
      if (!events.hello(session, frame)) return
      helloTimer.cancel()
      phase = 'open'
      return
    }
    if (phase !== 'open') return bad('a frame before hello')
    events.seen(session)
    events.frame(session, frame)
  }

  const session: Session = {
    nodeId,
    get phase() {
      return phase
    },
    send(text) {
      if (phase === 'closed') return
      counters.framesOut += 1
      counters.bytesOut += text.length
      connection.send(text)
      if (connection.bufferedBytes() > MAX_BUFFERED_BYTES) {
        counters.slow += 1
        session.close(CLOSE.slow, 'too slow: the outgoing buffer is full')
      }
    },
    bufferedBytes: () => connection.bufferedBytes(),
    close(code, reason) {
      connection.close(code, reason)
      end(code, reason)
    },
  }
  connection.onClose(end)
  connection.onMessage(take)
  return session
}
