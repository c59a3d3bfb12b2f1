import * as fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { answerTo, aQuestion } from '../../test/builders/scheduling.ts'
import { API_VERSION, answerSchema, questionSchema, schedulerJsonSchema } from './protocol.ts'
import { readAnswer } from './read-answer.ts'

const ASKED = ['n-1', 'n-2']
const answer = (nodes: unknown, apiVersion: unknown = API_VERSION) => JSON.stringify({ apiVersion, nodes })
const read = (text: string) => readAnswer(text, ASKED)
const N1 = { id: 'n-1', score: 1 }
const N2 = { id: 'n-2', reject: 'too hot' }

describe('the answer of a scheduler', () => {
  it('gives a verdict on each node that was asked about', () => {
    expect(read(answer([N2, { ...N1, max: 3 }]))).toEqual({
      kind: 'ok',
      verdicts: new Map([
        ['n-2', { kind: 'reject', reason: 'too hot' }],
        ['n-1', { kind: 'accept', score: 1, atMost: 3 }],
      ]),
    })
  })

  it.each([
    ['nothing', '', 'no JSON'],
    ['NaN', '{"apiVersion":"rubato.scheduler/1","nodes":[{"id":"n-1","score":NaN}]}', 'no JSON'],
    ['another version', answer([N1, N2], 'rubato.scheduler/2'), 'not of apiVersion rubato.scheduler/1'],
    ['no object', 'null', 'not of apiVersion'],
    ['no list', answer({ 'n-1': 1 }), 'wrong at nodes: '],
    ['too large a score', answer([{ id: 'n-1', score: 1e308 }, N2]), 'wrong at nodes.0.score: '],
    ['an endless score', `{"apiVersion":"${API_VERSION}","nodes":[{"id":"n-1","score":1e999}]}`, 'wrong at nodes.0.score: '],
    ['a negative score', answer([{ id: 'n-1', score: -1 }, N2]), 'wrong at nodes.0.score: '],
    ['a score that is text', answer([{ id: 'n-1', score: '5' }, N2]), 'wrong at nodes.0.score: '],
    ['neither score nor rejection', answer([{ id: 'n-1' }, N2]), 'wrong at nodes.0.'],
    ['both of them', answer([{ ...N1, reject: 'x' }, N2]), 'wrong at nodes.0'],
    ['a limit of none', answer([{ ...N1, max: 0 }, N2]), 'wrong at nodes.0.max: '],
    ['a key that there is not', answer([{ id: 'n-1', scores: 5 }, N2]), 'wrong at nodes.0'],
    ['a node that was not asked about', answer([N1, N2, { id: 'n-9', score: 1 }]), 'names n-9, which is no node of the question'],
    ['a node twice', answer([N1, N2, { id: 'n-1', reject: 'x' }]), 'names n-1 twice'],
    ['a node too few', answer([N1]), 'no verdict on 1 of 2 nodes, n-2 among them'],
  ])('counts as none with %s', (_what, text, fault) => {
    const result = read(text)
    expect(result.kind === 'bad' && result.fault).toContain(fault)
  })

  it.each([
    ['verdicts that are none', `[${Array(500_000).fill('{}').join(',')}]`],
    ['verdicts on one node', `[${Array(60_000).fill('{"id":"n-1","score":1}').join(',')}]`],
    ['lists in lists', `${'['.repeat(500_000)}${']'.repeat(500_000)}`],
    ['a verdict of many keys', `[{${Array.from({ length: 90_000 }, (_, index) => `"k${index}":0`).join(',')}}]`],
    ['many other keys', `[],${Array.from({ length: 90_000 }, (_, index) => `"k${index}":0`).join(',')}`],
  ])('of a megabyte of %s is refused at its first fault', (_what, nodes) => {
    const text = `{"apiVersion":"${API_VERSION}","nodes":${nodes}}`
    expect(read(text)).toEqual({ kind: 'bad', fault: 'its answer is larger than 2 verdicts can be' })
    const many = Array.from({ length: 500 }, (_, index) => `n-${index}`)
    const startedMs = process.cpuUsage()
    expect(readAnswer(text, many).kind).toBe('bad')
    const spent = process.cpuUsage(startedMs)
    const parsedMs = process.cpuUsage()
    JSON.parse(text)
    const parsing = process.cpuUsage(parsedMs)
    // What JSON.parse takes, again and again, is the measure: nobody knows how fast this machine is.
    expect(spent.user).toBeLessThan(10 * parsing.user + 100_000)
  })

  it('has reasons of one short line, and not too many of them', () => {
    const ids = Array.from({ length: 100 }, (_, index) => `n-${index}`)
    const text = answer(ids.map((id, index) => ({ id, reject: `at\n\u001b[31m ${index}\u202e °C ${'x'.repeat(500)}` })))
    const result = readAnswer(text, ids)
    const reasons = new Set(
      result.kind === 'ok' ? [...result.verdicts.values()].map((each) => each.kind === 'reject' && each.reason) : [],
    )
    expect(reasons.size).toBe(21)
    expect(reasons).toContain('other reasons')
    for (const reason of reasons) expect(reason).toMatch(/^[^\p{Cc}\p{Cf}]{1,80}$/u)
  })

  it('B4: whatever arrives, it is refused or it has exactly one bounded verdict on each node', async () => {
    const verdict = fc.record(
      {
        id: fc.constantFrom('n-1', 'n-2', 'n-3', '__proto__'),
        score: fc.oneof(fc.double(), fc.constantFrom(0, 100, 50)),
        max: fc.oneof(fc.integer(), fc.double()),
        reject: fc.string(),
      },
      { requiredKeys: ['id'] },
    )
    const text = fc.oneof(
      fc.string(),
      fc.json(),
      fc.array(fc.oneof(verdict, fc.anything()), { maxLength: 4 }).map((nodes) => answer(nodes)),
      fc.tuple(verdict, verdict).map(([a, b]) =>
        answer([
          { ...a, id: 'n-1' },
          { ...b, id: 'n-2' },
        ]),
      ),
    )
    await fc.assert(
      fc.property(text, (given) => {
        const result = read(given)
        if (result.kind === 'bad') {
          expect(result.fault.length).toBeLessThan(300)
          return
        }
        expect([...result.verdicts.keys()].sort()).toEqual(ASKED)
        for (const each of result.verdicts.values())
          if (each.kind === 'reject') expect(each.reason).toMatch(/^.{1,80}$/u)
          else {
            expect(each.score >= 0 && each.score <= 100).toBe(true)
            expect(each.atMost === null || (Number.isInteger(each.atMost) && each.atMost >= 1)).toBe(true)
          }
      }),
      { numRuns: 500 },
    )
  })
})

describe('the published schema', () => {
  it('is the one that answers are checked with', () => {
    const published = JSON.parse(readFileSync(new URL('../../docs/scheduler.schema.json', import.meta.url), 'utf8')) as unknown
    expect(published).toEqual(JSON.parse(JSON.stringify(schedulerJsonSchema())))
  })

  it('describes what is sent and what is taken', () => {
    const question = aQuestion()
    expect(questionSchema.safeParse(question).error?.issues ?? []).toEqual([])
    expect(answerSchema.safeParse(JSON.parse(answerTo(question, () => ({ score: 1 })))).success).toBe(true)
  })
})
