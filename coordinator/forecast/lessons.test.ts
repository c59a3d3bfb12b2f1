import { describe, expect, it } from 'vitest'
import type { PastAnswer } from '../history/past.ts'
import { createLessons, type LessonSpan } from './lessons.ts'

const SPAN: LessonSpan = { fromMs: 0, usualStepMs: 900_000, minutesFromMs: 600_000, untilMs: 1_200_000, isAgain: false }

/** A past that answers when it is told to. */
function bed() {
  const waiting: { readonly subject: string; readonly stepMs: number; settle(answer: PastAnswer | Error): void }[] = []
  let ready = 0
  const failed: string[] = []
  const lessons = createLessons({
    past: {
      query: ({ subject, stepMs }) =>
        new Promise((resolve, reject) => {
          waiting.push({ subject, stepMs, settle: (answer) => (answer instanceof Error ? reject(answer) : resolve(answer)) })
        }),
    },
    onReady: () => {
      ready += 1
    },
    onFailed: (id, error) => void failed.push(`${id}: ${String(error)}`),
  })
  const settle = async (answer: PastAnswer | Error) => {
    waiting.shift()?.settle(answer)
    await new Promise((resolve) => setImmediate(resolve))
  }
  return { lessons, waiting, settle, ready: () => ready, failed }
}
const answer = (value: number, isWhole = true): PastAnswer => ({ points: [{ atMs: 0, value, max: value }], isWhole })

describe('lessons', () => {
  it('are read once, taken once, and told when they are there', async () => {
    const { lessons, settle, waiting, ready } = bed()
    for (let i = 0; i < 3; i += 1) expect(lessons.take('shop/web', SPAN)).toBeNull()
    expect(waiting.map(({ subject, stepMs }) => [subject, stepMs])).toEqual([['service shop/web', 900_000]])
    await settle(answer(1))
    expect([ready(), waiting[0]?.stepMs]).toEqual([0, 60_000])
    await settle(answer(2, false))
    expect(ready()).toBe(1)
    expect(lessons.take('shop/web', SPAN)).toEqual({
      usual: answer(1).points,
      minutes: answer(2).points,
      untilMs: SPAN.untilMs,
      isWhole: false,
    })
    expect(lessons.take('shop/web', SPAN)).toBeNull()
    expect(waiting).toHaveLength(1)
  })

  it('are few at a time; one that nobody wants any more makes room', () => {
    const { lessons, waiting } = bed()
    for (let i = 0; i < 50; i += 1) lessons.take(`shop/s${i}`, SPAN)
    expect(waiting).toHaveLength(4)
    lessons.keepOnly(new Set(['shop/s1', 'shop/s2', 'shop/s3']))
    lessons.take('shop/s9', SPAN)
    expect(waiting.at(-1)?.subject).toBe('service shop/s9')
  })

  it('that could not be read are read again when they are asked for again', async () => {
    const { lessons, settle, waiting, failed } = bed()
    lessons.take('shop/web', SPAN)
    await settle(new Error('out of order'))
    expect(failed).toEqual(['shop/web: Error: out of order'])
    lessons.take('shop/web', SPAN)
    expect(waiting).toHaveLength(1)
  })

  it('had before are not read to their end when they would not be whole', async () => {
    const { lessons, settle, waiting } = bed()
    lessons.take('shop/web', { ...SPAN, isAgain: true })
    await settle(answer(1, false))
    expect(waiting).toEqual([])
    expect(lessons.take('shop/web', SPAN)?.isWhole).toBe(false)
  })
})
