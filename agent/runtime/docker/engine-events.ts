/** What happens to the engine's containers, as its stream of events tells it: read without end, connected again when it breaks. */
import type { Readable } from 'node:stream'
import { backoffCeilingMs } from '../../../shared/backoff.ts'
import { type Clock, sleep } from '../../../shared/clock.ts'
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import { LABEL } from './docker-mapping.ts'
import type { Engine } from './engine.ts'
import type { Inspections } from './inspections.ts'

export interface EngineEventsDeps {
  readonly engine: Engine
  readonly clusterId: string
  readonly nodeId: string
  /** Forgets what an event speaks of. */
  readonly inspections: Inspections
  readonly clock: Clock
  readonly logger: Logger
  /** Runs when a stream is there again, before anyone hears of it. */
  readonly onAgain: () => Promise<void>
}

interface RawEvent {
  readonly id: string
  readonly action: string
  /** Epoch ms by the engine's clock. */
  readonly atMs: number
  /** Of a `kill`; else ''. */
  readonly signal: string
  readonly labels: Readonly<Record<string, string>>
}

export interface EngineEvent extends RawEvent {
  /** Ours, on this node. */
  readonly instance: string | null
  /** Nobody's of any cluster. */
  readonly foreign: boolean
}

const BACKOFF = { baseMs: 250, capMs: 5_000 }
const NAMES = ['create', 'start', 'die', 'stop', 'kill', 'oom', 'destroy', 'pause', 'unpause', 'rename', 'health_status']

/** Events of containers until the signal aborts; connects again by itself, then says `again`: some may have been missed. */
export async function* followEngine(deps: EngineEventsDeps, signal: AbortSignal): AsyncIterable<EngineEvent | 'again'> {
  const { engine, inspections, clock, logger } = deps
  let failures = 0
  let first = true
  while (!signal.aborted) {
    let stream: Readable | null = null
    const onAbort = () => stream?.destroy()
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      stream = (await engine.call(
        (abortSignal) => engine.docker.getEvents({ filters: { type: ['container'], event: NAMES }, abortSignal }),
        { signal },
      )) as Readable
      failures = 0
      const unwatch = inspections.watch()
      try {
        if (!first) {
          await deps.onAgain()
          yield 'again'
        }
        first = false
        yield* eventsIn(deps, stream)
      } finally {
        unwatch()
      }
      if (!signal.aborted) logger.info('the event stream of the engine ended, connecting again', {})
    } catch (error) {
      if (signal.aborted) break
      first = false
      if (failures === 0) logger.warn('the event stream of the engine broke, connecting again', { error: messageOf(error) })
    } finally {
      signal.removeEventListener('abort', onAbort)
      stream?.destroy()
    }
    await sleep(clock, backoffCeilingMs(failures++, BACKOFF), signal).catch(() => {})
  }
}

async function* eventsIn({ inspections, clusterId, nodeId }: EngineEventsDeps, stream: Readable): AsyncIterable<EngineEvent> {
  let rest = ''
  for await (const chunk of stream) {
    const lines = (rest + String(chunk)).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const event = readEvent(line)
      if (event === null) continue
      inspections.forget(event.id)
      const own = event.labels[LABEL.cluster] === clusterId && event.labels[LABEL.node] === nodeId
      const instance = event.labels[LABEL.instance]
      yield { ...event, instance: own && instance ? instance : null, foreign: !(LABEL.cluster in event.labels) }
    }
  }
}

function readEvent(line: string): RawEvent | null {
  if (line.trim() === '') return null
  try {
    const event = JSON.parse(line) as {
      Action?: string
      time?: number
      timeNano?: number
      Actor?: { ID?: string; Attributes?: Record<string, string> }
    }
    const labels = event.Actor?.Attributes ?? {}
    const atMs = event.timeNano === undefined ? (event.time ?? 0) * 1000 : event.timeNano / 1e6
    return { id: event.Actor?.ID ?? '', action: event.Action ?? '', atMs, signal: labels.signal ?? '', labels }
  } catch {
    // Half a line of a broken stream; what it meant is seen at the next look.
    return null
  }
}
