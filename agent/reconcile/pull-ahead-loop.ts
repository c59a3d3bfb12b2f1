/**
 * Pulls images before an instance needs them, as the coordinator asks: one at a time, and only while no instance pulls. What was asked
 * is kept in memory only; nothing here ever deletes an image or touches an instance, and a failure is tried again later and told.
 */
import type { Clock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import type { ImageToPull, PulledAhead } from '../../shared/protocol/frames.ts'
import type { Runtime } from '../runtime/runtime.ts'
import { type AheadMemory, afterFailure, answerOf, planPullAhead } from './plan-pull-ahead.ts'

export interface PullAheadDeps {
  /** The one whose instances have images. */
  readonly runtime: Pick<Runtime, 'hasImage' | 'pull'>
  readonly clock: Clock
  readonly logger: Logger
  /** Images that instances pull now; whoever changes them pokes the loop. */
  instancePulls(): ReadonlySet<string>
  /** After each `want`, and when an image came or failed. */
  tell(answer: PulledAhead): void
}

export interface PullAhead extends Loop {
  /** Everything that shall be here, most urgent first, in place of what was wanted before. */
  want(images: readonly ImageToPull[]): void
  answer(): PulledAhead
  readonly counters: { readonly pulled: number; readonly failed: number; readonly aborted: number }
}

/** The sets that come with the same news go first, and with them the pulls of instances. */
const SETTLE_MS = 100

export function createPullAhead({ runtime, clock, logger, instancePulls, tell }: PullAheadDeps): PullAhead {
  const counters = { pulled: 0, failed: 0, aborted: 0 }
  let wanted: readonly ImageToPull[] = []
  let memory = new Map<string, AheadMemory>()
  let underWay: { readonly image: string; readonly abort: AbortController; readonly end: Promise<void> } | null = null
  let told = ''
  let stopped = true

  const tellNews = () => {
    const answer = answerOf({ wanted, memory })
    const text = JSON.stringify(answer)
    if (text === told) return
    told = text
    tell(answer)
  }
  /** What came of an image that was given up meanwhile is of no interest. */
  const learn = (image: string, what: AheadMemory) => {
    if (wanted.some((want) => want.image === image)) memory.set(image, what)
  }
  const failed = (image: string, error: unknown) => {
    counters.failed += 1
    const what = afterFailure(memory.get(image), clock.monotonicMs())
    learn(image, what)
    logger.info('an image could not be pulled ahead, it is tried again later', { image, error: messageOf(error) })
  }

  const look = async (image: string) => {
    try {
      learn(image, { kind: (await runtime.hasImage(image)) ? 'here' : 'absent' })
    } catch (error) {
      failed(image, error)
    }
  }
  const pull = async ({ image, platform, refresh }: ImageToPull, signal: AbortSignal) => {
    const startedMs = clock.monotonicMs()
    try {
      // An instance may have pulled it since it was looked for.
      if (refresh !== true && (await runtime.hasImage(image))) return learn(image, { kind: 'here' })
      await runtime.pull(image, platform === undefined ? {} : { platform }, signal)
      counters.pulled += 1
      learn(image, { kind: 'here' })
      logger.info('an image was pulled ahead', { image, tookMs: clock.monotonicMs() - startedMs })
    } catch (error) {
      if (!signal.aborted) return failed(image, error)
      counters.aborted += 1
      logger.debug('a pull ahead was given up', { image, reason: messageOf(signal.reason) })
    }
  }
  const begin = (want: ImageToPull) => {
    const abort = new AbortController()
    const end = pull(want, abort.signal).finally(() => {
      underWay = null
      if (!stopped) tellNews()
      loop.poke()
    })
    underWay = { image: want.image, abort, end }
  }

  const loop = createLoop({
    name: 'pull-ahead',
    clock,
    logger,
    debounceMs: SETTLE_MS,
    async run(signal) {
      const nowMs = clock.monotonicMs()
      const state = { wanted, memory, instancePulls: instancePulls(), underWay: underWay?.image ?? null }
      const plan = planPullAhead(state, nowMs)
      for (const action of plan.actions) {
        if (signal.aborted) return null
        if (action.kind === 'abort') underWay?.abort.abort(new Error(action.reason))
        else if (action.kind === 'look') await look(action.image)
        else if (underWay === null) begin(action.want)
      }
      tellNews()
      // What was looked for just now may have to be pulled.
      if (plan.actions.some((action) => action.kind === 'look')) return clock.now()
      return plan.wakeAtMs === null ? null : clock.now() + (plan.wakeAtMs - nowMs)
    },
  })

  return {
    name: loop.name,
    counters,
    answer: () => answerOf({ wanted, memory }),
    want(images) {
      wanted = images
      memory = new Map([...memory].filter(([image]) => images.some((want) => want.image === image)))
      told = ''
      loop.poke()
    },
    poke: () => loop.poke(),
    start() {
      stopped = false
      loop.start()
    },
    async stop() {
      stopped = true
      underWay?.abort.abort(new Error('the agent stops'))
      await loop.stop()
      await underWay?.end
    },
  }
}
