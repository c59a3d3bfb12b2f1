/**
 * What services' forecasts begin with, where the past has to be asked for: a few services are read at a time, and nothing waits
 * for them. The loop takes a lesson when it is there.
 */
import type { ServiceId } from '../../shared/model/identity.ts'
import type { Past } from '../history/past.ts'
import type { Measure, Point } from '../history/series.ts'

export interface Lesson {
  /** Over the whole time, in coarse steps. */
  readonly usual: readonly Point[]
  readonly minutes: readonly Point[]
  /** What comes after it is not in the lesson. */
  readonly untilMs: number
  /** false: somebody who may know more did not answer. */
  readonly isWhole: boolean
}

export interface LessonSpan {
  readonly fromMs: number
  readonly usualStepMs: number
  readonly minutesFromMs: number
  readonly untilMs: number
  /** Something was learned before: only a whole lesson is of use now, another need not be read to its end. */
  readonly isAgain: boolean
}

export interface Lessons {
  /** The lesson that was asked for, once; null: it is being read, or others are first. `onReady` tells when to ask again. */
  take(id: ServiceId, span: LessonSpan): Lesson | null
  /** Drops lessons that nobody will take. */
  keepOnly(wanted: { has(id: ServiceId): boolean }): void
}

export interface LessonsDeps {
  readonly past: Pick<Past, 'query'>
  onReady(): void
  /** It is read again when it is asked for again. */
  onFailed(id: ServiceId, error: unknown): void
}

/** Lessons that are being read or wait to be taken: a service's is about a megabyte. */
const AT_ONCE = 4
const MINUTE_MS = 60_000

export function createLessons({ past, onReady, onFailed }: LessonsDeps): Lessons {
  /** null: being read. */
  const lessons = new Map<ServiceId, Lesson | null>()

  const read = async (id: ServiceId, { fromMs, usualStepMs, minutesFromMs, untilMs, isAgain }: LessonSpan) => {
    const query = (from: number, stepMs: number) =>
      past.query({ subject: `service ${id}`, measure: 'demand' satisfies Measure, fromMs: from, toMs: untilMs, stepMs })
    const usual = await query(fromMs, usualStepMs)
    const minutes = isAgain && !usual.isWhole ? usual : await query(minutesFromMs, MINUTE_MS)
    // Not wanted any more meanwhile.
    if (!lessons.has(id)) return
    lessons.set(id, { usual: usual.points, minutes: minutes.points, untilMs, isWhole: usual.isWhole && minutes.isWhole })
    onReady()
  }

  return {
    take(id, span) {
      const lesson = lessons.get(id)
      if (lesson === undefined && lessons.size < AT_ONCE) {
        lessons.set(id, null)
        read(id, span).catch((error: unknown) => {
          lessons.delete(id)
          onFailed(id, error)
        })
      }
      if (lesson === undefined || lesson === null) return null
      lessons.delete(id)
      return lesson
    },
    keepOnly(wanted) {
      for (const id of lessons.keys()) if (!wanted.has(id)) lessons.delete(id)
    },
  }
}
