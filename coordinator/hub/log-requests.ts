/** Logs that somebody asked the coordinator for: one request per reader, its lines queued, bounded, in order. */
import { NotFoundError, UnavailableError } from '../../shared/errors.ts'
import type { InstanceId, NodeId } from '../../shared/model/identity.ts'
import type { logChunkSchema, LogsRequestFrame } from '../../shared/protocol/frames.ts'
import type { z } from 'zod'

export type LogChunk = z.infer<typeof logChunkSchema>
export type LogLine = LogChunk['lines'][number]

export interface LogOptions {
  /** Go on with new lines until the signal aborts. */
  readonly follow: boolean
  /** At most this many lines of what is there already. */
  readonly tail: number
}

/** A reader slower than its log loses the oldest lines rather than filling the coordinator's memory. */
const MAX_QUEUED_LINES = 5000

export interface LogRequests {
  /** Lines of the instance. Throws NotFoundError when no node reported it, UnavailableError when its node is away or goes away. */
  read(instance: InstanceId, options: LogOptions, signal: AbortSignal): AsyncIterable<LogLine>
  /** A chunk came from this node; one for a request that is not its own is ignored. */
  chunk(nodeId: NodeId, chunk: LogChunk): void
  /** The node's session ended. */
  lostNode(nodeId: NodeId): void
}

interface Request {
  readonly nodeId: NodeId
  readonly lines: LogLine[]
  dropped: number
  ended: Error | 'end' | null
  wake: () => void
}

export function createLogRequests(deps: {
  nodeOf(instance: InstanceId): NodeId | null
  /** Sends the frame; false when the node is not connected. */
  send(nodeId: NodeId, frame: LogsRequestFrame): boolean
}): LogRequests {
  const requests = new Map<string, Request>()
  let nextRequest = 1
  return {
    async *read(instance, options, signal) {
      const nodeId = deps.nodeOf(instance)
      if (nodeId === null) throw new NotFoundError(`no node has reported instance ${instance}`)
      const id = `logs-${nextRequest++}`
      const request: Request = { nodeId, lines: [], dropped: 0, ended: null, wake: () => {} }
      const frame: LogsRequestFrame = { type: 'logs', request: id, instance, ...options, cancel: false }
      requests.set(id, request)
      const onAbort = () => {
        request.ended = 'end'
        request.lines.length = 0
        request.wake()
      }
      signal.addEventListener('abort', onAbort, { once: true })
      try {
        if (signal.aborted) return
        if (!deps.send(nodeId, frame)) throw new UnavailableError(`node ${nodeId} of ${instance} is not connected`)
        for (;;) {
          const line = request.lines.shift()
          if (line) yield line
          else if (request.ended === 'end') return
          else if (request.ended) throw request.ended
          else
            await new Promise<void>((resolve) => {
              request.wake = resolve
            })
        }
      } finally {
        signal.removeEventListener('abort', onAbort)
        requests.delete(id)
        if (request.ended === null || signal.aborted) deps.send(nodeId, { ...frame, cancel: true })
      }
    },
    chunk(nodeId, chunk) {
      const request = requests.get(chunk.request)
      if (!request || request.nodeId !== nodeId || request.ended !== null) return
      for (const line of chunk.lines) request.lines.push(line)
      const excess = request.lines.length - MAX_QUEUED_LINES
      if (excess > 0) {
        const at = request.lines[excess]?.atMs ?? 0
        request.dropped += excess
        request.lines.splice(0, excess + 1, {
          atMs: at,
          stream: 'stderr',
          text: `[rubato: ${request.dropped} lines left out, the reader is too slow]`,
        })
      }
      if (chunk.end) request.ended = chunk.error === undefined ? 'end' : new UnavailableError(chunk.error.slice(0, 500))
      request.wake()
    },
    lostNode(nodeId) {
      for (const request of requests.values()) {
        if (request.nodeId !== nodeId || request.ended !== null) continue
        request.ended = new UnavailableError(`the connection to node ${nodeId} ended`)
        request.wake()
      }
    },
  }
}
