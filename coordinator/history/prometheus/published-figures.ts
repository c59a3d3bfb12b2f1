/**
 * What the history records, as `/metrics` publishes it: the last sample of every series that is still measured, and counters of the
 * requests to each service. The same samples under the same rules: what was not measured just now is absent, never zero and never an
 * old value. Bounded as the history is: 100,000 series, 10,000 of one app.
 */
import type { Clock } from '../../../shared/clock.ts'
import { LATENCY_BUCKETS_MS } from '../../../shared/model/observation.ts'
import type { ServiceId } from '../../../shared/model/identity.ts'
import type { Observed } from '../../state/observed.ts'
import { SeriesIndex } from '../series-index.ts'
import { isRecordable } from '../levels.ts'
import type { History, SeriesId } from '../series.ts'
import { countTraffic, type Traffic, type TrafficCounts } from '../traffic-counts.ts'
import { type Figure, figureOf, FIGURES, labelsOf } from './figure-names.ts'

export interface PublishedFigures {
  /** Passes every sample on to the history, and publishes it. */
  over<T extends Pick<History, 'record'>>(history: T): T
  start(): void
  stop(): void
  /** Prometheus text form. */
  text(): string
}

export interface PublishedFiguresDeps {
  readonly cluster: string
  readonly observed: Observed
  /** Services that there are. */
  services(): Iterable<ServiceId>
  exists(service: ServiceId): boolean
  readonly clock: Clock
}

interface Published {
  readonly id: SeriesId
  readonly figure: Figure
  readonly labels: string
  value: number
  /** Monotonic. */
  notedMs: number
}

/** Several sampling intervals: older than this, it is measured no more. */
const FRESH_MS = 10_000
const MINUTE_MS = 60_000
/** Minutes of the longest forecast, with room. */
const MAX_AHEAD = 70
/** A histogram is twenty series: with more services with requests than this, the others have none. */
const MAX_HISTOGRAMS = 2_000

export function createPublishedFigures(deps: PublishedFiguresDeps): PublishedFigures {
  const { cluster, clock } = deps
  const index = new SeriesIndex<Published>()
  /** By subject what is forecast of the minutes to come, in the order in which it was said. */
  const ahead = new Map<string, { readonly atMs: number; readonly value: number }[]>()
  let traffic: TrafficCounts | null = null
  let forgotMs = clock.monotonicMs()

  const note = (id: SeriesId, value: number) => {
    const notedMs = clock.monotonicMs()
    const known = index.find(id)
    if (known !== undefined) {
      known.value = value
      known.notedMs = notedMs
      return
    }
    const figure = figureOf(id)
    if (figure?.kind !== 'gauge') return
    forgetOld(index.hasRoomFor(id) ? MINUTE_MS : FRESH_MS)
    if (index.hasRoomFor(id)) index.add({ id: { ...id }, figure, labels: `{${labelsOf(id.subject, cluster)}}`, value, notedMs })
  }

  const noteAhead = ({ subject }: SeriesId, atMs: number, value: number) => {
    let list = ahead.get(subject)
    if (list === undefined) {
      forgetOld(MINUTE_MS)
      list = []
      ahead.set(subject, list)
    }
    list.push({ atMs, value })
    if (list.length > MAX_AHEAD) list.shift()
  }

  /** What was forecast last for the present minute. */
  const bringForward = () => {
    const nowMs = clock.now()
    for (const [subject, list] of ahead) {
      const present = list.findLast(({ atMs }) => atMs <= nowMs && nowMs < atMs + MINUTE_MS)
      if (present !== undefined) note({ subject, measure: 'forecast' }, present.value)
    }
  }

  /** What is measured no more, unless that was done within this time: nobody may ever ask for the text. */
  const forgetOld = (notWithinMs: number) => {
    const nowMs = clock.monotonicMs()
    if (nowMs - forgotMs < notWithinMs) return
    forgotMs = nowMs
    for (const { id, notedMs } of [...index.values()]) if (nowMs - notedMs > FRESH_MS) index.delete(id)
    for (const [subject, list] of ahead) {
      const left = list.filter(({ atMs }) => clock.now() < atMs + MINUTE_MS)
      if (left.length === 0) ahead.delete(subject)
      else ahead.set(subject, left)
    }
    traffic?.forgetGone()
  }

  const countersOf = (families: Families) => {
    if (traffic === null) return
    let histograms = 0
    for (const service of deps.services()) {
      const counts = traffic.of(service)
      if (counts === undefined) continue
      const labels = labelsOf(`service ${service}`, cluster)
      for (const [measure, value] of Object.entries(countersIn(counts))) {
        const figure = FIGURES.service[measure as keyof ReturnType<typeof countersIn>]
        if (figure !== undefined) families.put(figure, `${figure.name}{${labels}} ${value}`)
      }
      histograms += 1
      if (histograms <= MAX_HISTOGRAMS) addHistogram(families, labels, counts)
    }
  }

  return {
    over: (history) => ({
      ...history,
      record(id: SeriesId, atMs: number, value: number) {
        history.record(id, atMs, value)
        if (!isRecordable(value)) return
        if (id.measure === 'forecast') noteAhead(id, atMs, value)
        else note(id, value)
      },
    }),
    start() {
      traffic ??= countTraffic(deps.observed, deps.exists)
    },
    stop() {
      traffic?.stop()
      traffic = null
    },
    text() {
      bringForward()
      forgetOld(0)
      const families = new Families()
      for (const { figure, labels, value } of index.values())
        families.put(figure, `${figure.name}${labels} ${value / figure.factor}`)
      countersOf(families)
      return families.text()
    },
  }
}

function countersIn({ requests, errors, denied, rxBytes, txBytes }: Traffic) {
  return { requests, errors, denied, rxBytesPerS: rxBytes, txBytesPerS: txBytes }
}

function addHistogram(families: Families, labels: string, { answerTimes }: Traffic): void {
  const figure = FIGURES.service.latencyP95
  if (figure === undefined) return
  let count = 0
  answerTimes.forEach((here, i) => {
    count += here
    const bound = LATENCY_BUCKETS_MS[i]
    families.put(figure, `${figure.name}_bucket{${labels},le="${bound === undefined ? '+Inf' : bound / figure.factor}"} ${count}`)
  })
  families.put(figure, `${figure.name}_count{${labels}} ${count}`)
}

/** Lines by metric: the text form wants those of one together. */
class Families {
  readonly #lines = new Map<Figure, string[]>()

  put(figure: Figure, line: string): void {
    const lines = this.#lines.get(figure)
    if (lines === undefined) this.#lines.set(figure, [line])
    else lines.push(line)
  }

  text(): string {
    return [...this.#lines]
      .map(([{ name, help, kind }, lines]) => `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${lines.join('\n')}\n`)
      .join('')
  }
}
