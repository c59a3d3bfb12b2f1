/**
 * The agent's side of the link: one connection at a time to one of the coordinators, opened again with full jitter for as long as
 * the agent lives. Hands over whole sets, at start those from disk. Invariants: nothing of an epoch lower than the highest ever
 * seen is taken (I6); a revision never goes back (I13); an unknown desired set is never handed over as an empty one.
 */
import { join } from 'node:path'
import { backoffCeilingMs, fullJitterMs } from '../../shared/backoff.ts'
import { type Clock, sleep, type Timer } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Files } from '../../shared/files.ts'
import type { Logger } from '../../shared/logger.ts'
import type { InstanceStatus } from '../../shared/model/observation.ts'
import type { Connection, Dialer } from '../../shared/protocol/connection.ts'
import {
  type Assignment,
  CLOSE,
  type CoordinatorFrame,
  type DesiredFrame,
  type HelloFrame,
  type ImageToPull,
  type KeysFrame,
  type LogsRequestFrame,
  MAX_FRAME_BYTES,
  PROTOCOL_MAJOR,
  type PulledAhead,
  type Route,
  type RoutesFrame,
  type WelcomeFrame,
} from '../../shared/protocol/frames.ts'
import { parseCoordinatorFrame } from '../../shared/protocol/parse-frames.ts'
import type { Random } from '../../shared/random.ts'
import type { KeyRing } from '../gateway/key-ring.ts'
import { createHeldSet } from './held-set.ts'
import { createKeyRing, EMPTY_KEY_SET, type KeySet } from './key-ring.ts'
import { createOutbox, type Report } from './outbox.ts'
import { createSavedSets } from './saved-sets.ts'
import { changeDesired, changeKeys, changeRoutes, readDesired, readKeys, readRoutes, withoutRegistryAuth } from './set-changes.ts'

/** What hello says of the agent; the link adds protocol, epoch, revisions and inventory. */
export type HelloFacts = Omit<
  HelloFrame,
  'type' | 'major' | 'epoch' | 'desiredRevision' | 'keysRevision' | 'routesRevision' | 'inventory'
>

export interface LinkDeps {
  readonly dialer: Dialer
  /** Coordinators, best first. */
  readonly urls: readonly string[]
  readonly credential: string
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly files: Files
  /** The link keeps its files in `<stateDir>/link`. */
  readonly stateDir: string
  identity(): HelloFacts
  /** Everything that runs here under our labels, at this moment. */
  inventory(): readonly InstanceStatus[]
  /** The complete desired set. Not called before one is known. */
  onDesired(assignments: readonly Assignment[]): void
  /** The content of `Link.keyRing` changed; always that same object. */
  onKeys(ring: KeyRing): void
  /** The complete set of routes. */
  onRoutes(routes: readonly Route[]): void
  onLoads(loads: Readonly<Record<string, number>>): void
  onLogsRequest(request: LogsRequestFrame): void
  /** Every image to pull ahead from now on. Asked only of an agent whose `identity` says that it does so. */
  onPullAhead?(images: readonly ImageToPull[]): void
  /** The node left the cluster: stop everything, forget the credential. The link has stopped dialing. */
  onLeave(reason: string): void
  onConnected?(welcome: WelcomeFrame): void
  onDisconnected?(reason: string): void
}

export interface LogLine {
  readonly atMs: number
  readonly stream: 'stdout' | 'stderr'
  readonly text: string
}

export interface Link {
  /** Hands over the sets from disk, then dials in the background. Resolves when the sets are handed over. */
  start(): Promise<void>
  stop(): Promise<void>
  /** The latest status of these instances, and ids that are no longer here at all. Sent at once, or when connected. */
  sendStatus(statuses: readonly InstanceStatus[], gone?: readonly string[]): void
  /** Measured values; merged while they cannot be sent. */
  sendReport(report: Report): void
  /** Answers a logs request; false when there is no connection (the request is over) or it is too busy to take more now. */
  sendLog(request: string, lines: readonly LogLine[], end: boolean, error?: string): boolean
  /** How images stand that shall be pulled ahead. Lost without a connection: the next one asks again. */
  sendPulledAhead(answer: PulledAhead): void
  connected(): boolean
  /**
   * Monotonic ms at which the latest word was sent that a coordinator has certainly got, because it answered a later one or the
   * same; null: none yet. A connection that is open says nothing: its other end may have been silent for long.
   */
  contactMs(): number | null
  /**
   * The latest contact since which the desired set is certainly as the coordinator has it: this connection brought the full one, and
   * what changed comes before the answer to a ping; null: this connection has not brought it.
   */
  confirmedMs(): number | null
  readonly keyRing: KeyRing
  /** The highest epoch that was heard of, and the epoch of each set as it stands. */
  held(): {
    readonly highestEpoch: number
    readonly sets: { readonly desired: number; readonly keys: number; readonly routes: number }
  }
  /** Intervals of the last welcome; null before the first one. */
  welcome(): WelcomeFrame | null
  /** Frames of types that this version does not know, and frames refused for a lower epoch. */
  readonly counters: { readonly unknownFrames: number; readonly refusedFrames: number; readonly resyncs: number }
}

const RECONNECT = { baseMs: 500, capMs: 30_000 }
/** A connection this old was a good one: the next failure is a new story. */
const STABLE_MS = 30_000
const WELCOME_TIMEOUT_MS = 10_000
/** More than this waiting to be sent: measurements are merged instead. */
const BUSY_BYTES = 262_144
const CONFIRM_SAVE_MS = 60_000

export function createLink(deps: LinkDeps): Link {
  const { clock, random, files, logger } = deps
  const directory = join(deps.stateDir, 'link')
  const epochPath = join(directory, 'epoch')
  const confirmedPath = join(directory, 'keys-confirmed')
  const store = createSavedSets({ files, directory, logger })
  const outbox = createOutbox()
  const keys = createKeyRing()
  const counters = { unknownFrames: 0, refusedFrames: 0, resyncs: 0 }
  /** The sets carry their epochs too, so an unreadable file costs nothing but that a person should know. */
  const readOrWarn = async (path: string) => {
    try {
      return await files.read(path)
    } catch (error) {
      logger.warn('a file of the link cannot be read', { path, error: messageOf(error) })
      return null
    }
  }
  let contactMs: number | null = null
  let highestEpoch = 0
  let epochSaved: Promise<void> = Promise.resolve()
  let welcome: WelcomeFrame | null = null
  /** The connection that has been welcomed. */
  let open: Connection | null = null
  let current: Connection | null = null
  /** When the present connection was greeted. */
  let helloMs = 0
  let heartbeat: Timer | null = null
  let lastSentMs = 0
  let confirmSavedMs = Number.NEGATIVE_INFINITY
  let left = false
  let stopping = new AbortController()
  let running: Promise<void> | null = null

  const transmit = (frame: object | string) => {
    open?.send(typeof frame === 'string' ? frame : JSON.stringify(frame))
    lastSentMs = clock.monotonicMs()
  }
  const ack = (what: 'desired' | 'keys' | 'routes') => (revision: number) => {
    const connection = open
    void epochSaved.then(() => {
      if (connection && connection === open) transmit({ type: 'ack', what, revision })
    })
  }
  const sets = {
    desired: createHeldSet<ReadonlyMap<string, Assignment>, DesiredFrame>({
      name: 'desired',
      store,
      clock,
      logger,
      empty: new Map(),
      change: changeDesired,
      fromDisk: readDesired,
      toDisk: withoutRegistryAuth,
      saved: ack('desired'),
      apply: (value) => deps.onDesired([...value.values()]),
    }),
    keys: createHeldSet<KeySet, KeysFrame>({
      name: 'keys',
      store,
      clock,
      logger,
      empty: EMPTY_KEY_SET,
      change: changeKeys,
      fromDisk: readKeys,
      toDisk: (value) => value,
      saved: ack('keys'),
      apply(value, revision) {
        keys.replace(value, revision)
        deps.onKeys(keys.ring)
      },
    }),
    routes: createHeldSet<ReadonlyMap<string, Route>, RoutesFrame>({
      name: 'routes',
      store,
      clock,
      logger,
      empty: new Map(),
      change: changeRoutes,
      fromDisk: readRoutes,
      toDisk: (value) => [...value.values()],
      saved: ack('routes'),
      apply: (value) => deps.onRoutes([...value.values()]),
    }),
  }

  const saveSmall = (path: string, text: string) =>
    files.write(path, text, 0o600).catch((error: unknown) => {
      logger.error('the link could not save a file', { path, error: messageOf(error) })
    })
  const raiseEpoch = (epoch: number) => {
    if (epoch <= highestEpoch) return
    highestEpoch = epoch
    epochSaved = epochSaved.then(() => saveSmall(epochPath, String(epoch)))
  }
  const confirmKeys = () => {
    if (!sets.keys.inSync) return
    keys.confirm(clock.now())
    const nowMs = clock.monotonicMs()
    if (nowMs - confirmSavedMs < CONFIRM_SAVE_MS) return
    confirmSavedMs = nowMs
    void saveSmall(confirmedPath, String(clock.now()))
  }

  const flushOutbox = () => {
    if (!open) return
    for (const text of outbox.takeStatuses()) transmit(text)
    if (open.bufferedBytes() > BUSY_BYTES) return
    for (const text of outbox.takeReports()) transmit(text)
  }
  const beat = () => {
    if (!open || !welcome) return
    heartbeat = clock.setTimer(welcome.heartbeatMs / 2, beat)
    flushOutbox()
    if (clock.monotonicMs() - lastSentMs >= welcome.heartbeatMs / 2)
      transmit({ type: 'report', node: null, instances: [], full: false })
  }

  const takeSet = (frame: DesiredFrame | KeysFrame | RoutesFrame) => {
    raiseEpoch(frame.epoch)
    const outcome =
      frame.type === 'desired'
        ? sets.desired.take(frame)
        : frame.type === 'keys'
          ? sets.keys.take(frame)
          : sets.routes.take(frame)
    if (outcome !== 'gap') return
    counters.resyncs += 1
    transmit({ type: 'resync', what: frame.type })
  }

  const contact = (): number | null => {
    const answeredMs = open?.answeredMs() ?? null
    if (answeredMs !== null) contactMs = Math.max(contactMs ?? answeredMs, answeredMs)
    return contactMs
  }

  const takeFrame = (connection: Connection, frame: CoordinatorFrame): void => {
    if ('epoch' in frame && frame.epoch < highestEpoch) {
      counters.refusedFrames += 1
      logger.warn('a coordinator of an earlier epoch was refused', { epoch: frame.epoch, highestEpoch })
      connection.close(CLOSE.lowerEpoch, `epoch ${frame.epoch} is over, ${highestEpoch} has begun`)
      return
    }
    if (frame.type === 'welcome') {
      raiseEpoch(frame.epoch)
      welcome = frame
      open = connection
      contactMs = helloMs
      lastSentMs = clock.monotonicMs()
      flushOutbox()
      heartbeat?.cancel()
      heartbeat = clock.setTimer(frame.heartbeatMs / 2, beat)
      logger.info('connected to the coordinator', { epoch: frame.epoch })
      deps.onConnected?.(frame)
      return
    }
    if (frame.type === 'leave') {
      left = true
      stopping.abort(new Error('left the cluster'))
      connection.close(1000, 'left')
      deps.onLeave(frame.reason)
      return
    }
    if (open !== connection) return
    if (frame.type === 'loads') deps.onLoads(frame.loads)
    else if (frame.type === 'logs') deps.onLogsRequest(frame)
    else if (frame.type === 'pullAhead') deps.onPullAhead?.(frame.images)
    else takeSet(frame)
    confirmKeys()
  }

  const helloText = (): string => {
    const inventory = deps.inventory()
    outbox.reconnected(new Set(inventory.map((status) => status.instance)))
    const textOf = (list: readonly InstanceStatus[]) =>
      JSON.stringify({
        type: 'hello',
        major: PROTOCOL_MAJOR,
        ...deps.identity(),
        epoch: highestEpoch,
        desiredRevision: sets.desired.revision,
        keysRevision: sets.keys.revision,
        routesRevision: sets.routes.revision,
        inventory: list,
      } satisfies Omit<HelloFrame, 'inventory'> & { inventory: readonly InstanceStatus[] })
    const text = textOf(inventory)
    // Messages are for people; without them thousands of instances fit.
    return Buffer.byteLength(text) < MAX_FRAME_BYTES ? text : textOf(inventory.map((status) => ({ ...status, message: '' })))
  }

  /** Serves one connection to its end; resolves with the close code. */
  const serve = (connection: Connection): Promise<{ code: number; reason: string }> =>
    new Promise((resolve) => {
      current = connection
      for (const set of Object.values(sets)) set.reconnect()
      const timer = clock.setTimer(WELCOME_TIMEOUT_MS, () => {
        if (open !== connection) connection.close(CLOSE.badFrame, 'no welcome')
      })
      connection.onClose((code, reason) => {
        timer.cancel()
        const wasOpen = open === connection
        contact()
        if (wasOpen) open = null
        if (current === connection) current = null
        heartbeat?.cancel()
        if (wasOpen) deps.onDisconnected?.(reason)
        resolve({ code, reason })
      })
      connection.onMessage((text) => {
        if (current !== connection) return
        const parsed = parseCoordinatorFrame(text)
        if (parsed.kind === 'frame') takeFrame(connection, parsed.frame)
        else if (parsed.kind === 'unknown') counters.unknownFrames += 1
        else {
          logger.warn('the coordinator sent a bad frame', { detail: parsed.kind === 'bad' ? parsed.detail : parsed.kind })
          connection.close(CLOSE.badFrame, 'bad frame')
        }
      })
      helloMs = clock.monotonicMs()
      connection.send(helloText())
    })

  const run = async (signal: AbortSignal) => {
    for (let attempt = 0, turn = 0; !signal.aborted && !left; turn += 1) {
      const url = deps.urls[turn % Math.max(1, deps.urls.length)] ?? ''
      const outcome = await deps.dialer.dial(url, deps.credential, signal)
      if (signal.aborted) {
        if (outcome.kind === 'open') outcome.connection.close(1000, 'the agent stops')
        return
      }
      if (outcome.kind === 'open') {
        const startedMs = clock.monotonicMs()
        const { code, reason } = await serve(outcome.connection)
        if (clock.monotonicMs() - startedMs >= STABLE_MS) attempt = 0
        // Another agent holds our credential, or speaks another protocol: hurrying helps nobody.
        if (code === CLOSE.replaced || code === CLOSE.wrongMajor || code === CLOSE.foreignNode) attempt = Math.max(attempt, 5)
        if (!signal.aborted) logger.info('the link ended, will dial again', { url, code, reason })
      } else if (outcome.kind === 'rejected') {
        logger.warn('the coordinator refused the credential', { url, status: outcome.status })
        attempt = Math.max(attempt, 5)
      } else if (attempt === 0) logger.info('the coordinator cannot be reached, will dial again', { url, detail: outcome.detail })
      if (signal.aborted || left) return
      const delayMs = fullJitterMs(attempt, RECONNECT, random)
      logger.debug('waiting before dialing', { delayMs, ceilingMs: backoffCeilingMs(attempt, RECONNECT) })
      attempt += 1
      await sleep(clock, delayMs, signal).catch(() => {}) // Rejects only when stopped, which the loop looks at.
    }
  }

  return {
    keyRing: keys.ring,
    counters,
    connected: () => open !== null,
    contactMs: contact,
    confirmedMs: () => (open !== null && sets.desired.inSync ? contact() : null),
    held: () => ({
      highestEpoch,
      sets: { desired: sets.desired.epoch, keys: sets.keys.epoch, routes: sets.routes.epoch },
    }),
    welcome: () => welcome,
    async start() {
      if (running) return
      stopping = new AbortController()
      const text = await readOrWarn(epochPath)
      const confirmed = Number((await readOrWarn(confirmedPath)) ?? Number.NaN)
      await sets.keys.load()
      if (Number.isFinite(confirmed) && confirmed > 0) keys.confirm(Math.min(confirmed, clock.now()))
      await sets.desired.load()
      await sets.routes.load()
      const saved = /^\d{1,15}$/.test(text?.trim() ?? '') ? Number(text) : 0
      highestEpoch = Math.max(highestEpoch, saved, sets.desired.epoch, sets.keys.epoch, sets.routes.epoch)
      running = run(stopping.signal).catch((error: unknown) => {
        logger.error('the link failed', { error: messageOf(error) })
      })
    },
    async stop() {
      stopping.abort(new Error('the link stops'))
      current?.close(1000, 'the agent stops')
      heartbeat?.cancel()
      await Promise.all(Object.values(sets).map((set) => set.stop()))
      await running
      await epochSaved
      running = null
    },
    sendStatus(statuses, gone = []) {
      outbox.addStatuses(statuses, gone)
      if (open) for (const text of outbox.takeStatuses()) transmit(text)
    },
    sendReport(report) {
      outbox.addReport(report)
      flushOutbox()
    },
    sendPulledAhead(answer) {
      if (open) transmit({ type: 'pulledAhead', ...answer })
    },
    sendLog(request, lines, end, error) {
      if (!open || (open.bufferedBytes() > BUSY_BYTES && !end)) return false
      transmit({ type: 'log', request, lines, end, ...(error === undefined ? {} : { error }) })
      return true
    },
  }
}
