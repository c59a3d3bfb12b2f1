/**
 * All custom schedulers of the configuration: asks them, page by page, rests those that fail (breaker.ts), counts, and tells in events
 * what people should know. A question never fails: without an answer it says why the built-in scheduler has to choose.
 */
import type { Clock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import type { NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { Verdict } from '../placement/answers.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import type { State } from '../state/state.ts'
import { asked, type Breaker, CLOSED, failed, mayAsk } from './breaker.ts'
import { type QuestionContext, questionOf } from './plan-questions.ts'
import type { Question } from './protocol.ts'
import { askOnce, type Outcome, type Scheduler } from './scheduler.ts'
import { countRequest, newFigures, type SchedulerFigures } from './scheduler-metrics.ts'

export type Consultation =
  | { readonly kind: 'answered'; readonly verdicts: ReadonlyMap<NodeId, Verdict> }
  /** `why` is a clause about the scheduler: "no answer within 250 ms". */
  | { readonly kind: 'undecided'; readonly why: string }

export interface SchedulerBook {
  /** In alphabetical order. */
  names(): readonly string[]
  /** Whether as many questions of placement are under way to it as may be at once. */
  isBusy(name: string): boolean
  /** Why it is not to be asked now for that service, which is counted and told of; null when it may be asked. */
  decline(name: string, service: ServiceId): string | null
  /**
   * Asks about the candidates, best first, until it accepts one or all were asked about. Rejects only once the book is closed. For dry
   * runs one question is under way at a time, and none of their outcomes counts for the rests of a scheduler: they take nothing from placement.
   */
  consult(request: PlacementRequest, candidates: readonly PlacementNode[], context: QuestionContext): Promise<Consultation>
  figures(): readonly SchedulerFigures[]
  close(): Promise<void>
}

/** Questions to one scheduler at once, one of a dry run beside them: a service of its own that places a burst must not open a socket for each. */
const MAX_PARALLEL = 3
/** A question that others keep interrupting is put at most so often. */
const MAX_TIMES = 3
/** A scheduler that fails now and then is told of at most this often; each placement says by itself who chose. */
const FAILURE_EVENT_EVERY_MS = 60_000
/** Services remembered to name a scheduler that does not exist: told of once each. */
const MAX_MISSING = 1_000

interface Entry {
  readonly scheduler: Scheduler
  readonly figures: SchedulerFigures
  breaker: Breaker
  underWay: number
  isPreviewing: boolean
  toldFailureAtMs: number | null
}

export function createSchedulerBook(deps: {
  readonly schedulers: readonly Scheduler[]
  readonly state: State
  readonly clock: Clock
  readonly logger: Logger
}): SchedulerBook {
  const { clock, state } = deps
  const logger = deps.logger.with({ part: 'schedulers' })
  const entries = new Map<string, Entry>()
  for (const scheduler of [...deps.schedulers].sort((a, b) => (a.name < b.name ? -1 : 1)))
    entries.set(scheduler.name, {
      scheduler,
      figures: newFigures(scheduler.name),
      breaker: CLOSED,
      underWay: 0,
      isPreviewing: false,
      toldFailureAtMs: null,
    })
  const missing = new Set<string>()
  const closing = new AbortController()
  const writing = new Set<Promise<void>>()

  const tell = (type: string, subject: string, message: string, severity: 'info' | 'warning') => {
    logger[severity === 'info' ? 'info' : 'warn']('scheduler', { scheduler: subject, event: type, reason: message })
    const change = state.change().event({ actor: 'placement', type, subject, message, severity })
    const written = state
      .commit(change)
      .then(
        (outcome) => {
          if (outcome.kind !== 'committed') logger.warn('event was not stored', { event: type, outcome: outcome.kind })
        },
        (error) => logger.warn('event was not stored', { event: type, error: messageOf(error) }),
      )
      .finally(() => writing.delete(written))
    writing.add(written)
  }

  const noteFailure = (entry: Entry, service: string, detail: string) => {
    const { name } = entry.scheduler
    const nowMs = clock.monotonicMs()
    const wasOpen = entry.breaker.openUntilMs !== null
    entry.breaker = failed(entry.breaker, nowMs)
    const { openUntilMs, failures } = entry.breaker
    if (!wasOpen && openUntilMs !== null) {
      const restS = Math.round((openUntilMs - nowMs) / 1000)
      const text = `${name} rests for ${restS} s after ${failures} failures in a row, the last: ${detail}; the built-in scheduler chooses`
      tell('scheduler.paused', name, text, 'warning')
    } else if (!wasOpen && (entry.toldFailureAtMs === null || nowMs - entry.toldFailureAtMs >= FAILURE_EVENT_EVERY_MS)) {
      entry.toldFailureAtMs = nowMs
      tell('scheduler.failed', name, `${name} did not choose for ${service}: ${detail}; the built-in scheduler does`, 'warning')
    }
  }

  const noteAnswer = (entry: Entry) => {
    const { name } = entry.scheduler
    if (entry.breaker.openUntilMs !== null) tell('scheduler.resumed', name, `${name} answers again`, 'info')
    entry.breaker = CLOSED
  }

  const noteMissing = (name: string, service: ServiceId) => {
    const key = `${name}\n${service}`
    if (missing.has(key) || missing.size >= MAX_MISSING) return
    missing.add(key)
    const known = entries.size === 0 ? 'it has none' : `it has ${[...entries.keys()].join(', ')}`
    const text = `${service} names scheduler ${name}, which the configuration does not have (${known}); the built-in scheduler chooses`
    tell('scheduler.missing', name, text, 'warning')
  }

  const decline = (name: string, service: ServiceId): string | null => {
    const entry = entries.get(name)
    if (entry === undefined) {
      noteMissing(name, service)
      return 'the configuration has no such scheduler'
    }
    if (mayAsk(entry.breaker, clock.monotonicMs())) return null
    entry.figures.skipped += 1
    return `it rests after ${entry.breaker.failures} failures in a row`
  }

  const askCounted = async (entry: Entry, question: Question): Promise<Outcome> => {
    const outcome = await askOnce(entry.scheduler, question, clock, closing.signal)
    countRequest(entry.figures, outcome.kind === 'answered' ? 'answered' : outcome.code, outcome.tookMs)
    return outcome
  }

  const ask = async (
    entry: Entry,
    request: PlacementRequest,
    candidates: readonly PlacementNode[],
    context: QuestionContext,
  ): Promise<Consultation> => {
    const { scheduler } = entry
    const verdicts = new Map<NodeId, Verdict>()
    for (let from = 0; from < candidates.length; from += scheduler.maxCandidates) {
      const page = candidates.slice(from, from + scheduler.maxCandidates)
      const question = questionOf(request, page, candidates.length - from - page.length, context)
      let outcome = await askCounted(entry, question)
      for (let times = 1; times < MAX_TIMES && isInterrupted(outcome); times += 1) {
        // To load it anew may take longer than an answer. Where that fails, asking says so.
        await scheduler.recovered?.().catch(() => undefined)
        outcome = await askCounted(entry, question)
      }
      if (outcome.kind === 'failed') {
        if (!context.dryRun && !isInterrupted(outcome)) noteFailure(entry, request.service, outcome.detail)
        return { kind: 'undecided', why: outcome.detail }
      }
      if (!context.dryRun) noteAnswer(entry)
      for (const [id, verdict] of outcome.verdicts) verdicts.set(id, verdict)
      if ([...outcome.verdicts.values()].some((verdict) => verdict.kind === 'accept')) break
    }
    return { kind: 'answered', verdicts }
  }

  const preview = async (entry: Entry, asking: () => Promise<Consultation>): Promise<Consultation> => {
    if (entry.isPreviewing) return { kind: 'undecided', why: 'it is asked by another dry run at this moment' }
    entry.isPreviewing = true
    try {
      return await asking()
    } finally {
      entry.isPreviewing = false
    }
  }

  return {
    names: () => [...entries.keys()],
    isBusy: (name) => (entries.get(name)?.underWay ?? 0) >= MAX_PARALLEL,
    decline,
    async consult(request, candidates, context) {
      const why = decline(context.scheduler, request.service)
      const entry = entries.get(context.scheduler)
      if (why !== null || entry === undefined) return { kind: 'undecided', why: why ?? '' }
      if (context.dryRun) return preview(entry, () => ask(entry, request, candidates, context))
      entry.breaker = asked(entry.breaker)
      entry.underWay += 1
      try {
        return await ask(entry, request, candidates, context)
      } finally {
        entry.underWay -= 1
        if (entry.breaker.isTrying) entry.breaker = { ...entry.breaker, isTrying: false }
      }
    },
    figures: () => [...entries.values()].map(({ figures, breaker }) => ({ ...figures, isResting: breaker.openUntilMs !== null })),
    async close() {
      closing.abort(new Error('the coordinator stops'))
      await Promise.all([...entries.values()].map(({ scheduler }) => scheduler.close()))
      await Promise.all(writing)
    },
  }
}

function isInterrupted(outcome: Outcome): boolean {
  return outcome.kind === 'failed' && outcome.code === 'interrupted'
}
