/** Modules in real worker threads, also those that hang or crash. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../shared/clock.ts'
import { ConfigError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import { aQuestion } from '../../test/builders/scheduling.ts'
import { createModuleScheduler } from './module-scheduler.ts'
import { openSchedulers } from './open-schedulers.ts'
import { askOnce, type Scheduler } from './scheduler.ts'

let dir = ''
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'rubato-module-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

const open: Scheduler[] = []
afterEach(async () => {
  for (const scheduler of open.splice(0)) await scheduler.close()
})

let count = 0
async function moduleFile(text: string): Promise<string> {
  const path = join(dir, `m${++count}.mjs`)
  await writeFile(path, text)
  return path
}

const deps = () => ({ clock: systemClock(), logger: silentLogger() })
async function load(text: string, deadlineMs = 10_000): Promise<Scheduler> {
  const path = await moduleFile(text)
  const scheduler = await createModuleScheduler({ name: 'test', path, deadlineMs, maxCandidates: 1_000, ...deps() })
  open.push(scheduler)
  return scheduler
}
const ask = (scheduler: Scheduler) => askOnce(scheduler, aQuestion(), systemClock(), new AbortController().signal)

const ANSWER = `({ apiVersion: question.apiVersion, nodes: question.nodes.map(({ id }) => ({ id, score: 7 })) })`

describe('a scheduler that is a module', () => {
  it.each([
    ['a function', `export function schedule(question) { return ${ANSWER} }`],
    ['a default export', `export default (question) => ${ANSWER}`],
    ['a promise', `export async function schedule(question) { await null; return ${ANSWER} }`],
  ])('answers by %s', async (_what, text) => {
    expect(await ask(await load(text))).toMatchObject({
      kind: 'answered',
      verdicts: new Map(['n-1', 'n-2'].map((id) => [id, { kind: 'accept', score: 7, atMost: null }])),
    })
  })

  it('may keep what it learned between questions', async () => {
    const scheduler = await load(
      `let asked = 0\nexport function schedule(question) { asked += 1; return { apiVersion: question.apiVersion, nodes: question.nodes.map(({ id }) => ({ id, score: asked })) } }`,
    )
    await ask(scheduler)
    const outcome = await ask(scheduler)
    expect(outcome.kind === 'answered' && outcome.verdicts.get('n-1')).toEqual({ kind: 'accept', score: 2, atMost: null })
  })

  it.each([
    ['throws', `export function schedule() { throw new Error('no idea') }`, 'crashed', 'it threw: no idea'],
    ['ends its thread', `export function schedule() { process.exit(3) }`, 'crashed', 'its worker ended'],
    [
      'fails outside of the call',
      `export function schedule() { setImmediate(() => { throw new Error('late') }); return new Promise(() => {}) }`,
      'crashed',
      'late',
    ],
    ['answers nothing', `export function schedule() {}`, 'bad-answer', 'apiVersion'],
    [
      'answers NaN',
      `export const schedule = (question) => (${ANSWER.replace('score: 7', 'score: NaN')})`,
      'bad-answer',
      'nodes.0.score',
    ],
    ['answers what is no JSON', `export function schedule() { const me = {}; me.me = me; return me }`, 'crashed', 'it threw'],
    ['answers too much', `export function schedule() { return 'x'.repeat(2 ** 21) }`, 'bad-answer', 'larger than 1024 KiB'],
  ])('fails by name when it %s, and answers the next question', async (_what, text, code, detail) => {
    const scheduler = await load(text)
    expect(await ask(scheduler)).toMatchObject({ kind: 'failed', code, detail: expect.stringContaining(detail) })
    expect(await ask(scheduler)).toMatchObject({ kind: 'failed', code })
  })

  it('that is slow with one question is not blamed for the others, which are put to it again', async () => {
    const scheduler = await load(
      `let asked = 0\nexport async function schedule(question) { asked += 1; if (question.count === 1) await new Promise(() => {}); return ${ANSWER} }`,
      1_000,
    )
    const signal = new AbortController().signal
    const outcomes = await Promise.all(Array.from({ length: 3 }, () => askOnce(scheduler, aQuestion(), systemClock(), signal)))
    expect(outcomes.map((outcome) => (outcome.kind === 'failed' ? outcome.code : outcome.kind))).toEqual([
      'timeout',
      'interrupted',
      'interrupted',
    ])
    await scheduler.recovered?.()
    expect(await askOnce(scheduler, { ...aQuestion(), count: 2 }, systemClock(), signal)).toMatchObject({ kind: 'answered' })
  })

  it.each([
    ['null', 'null'],
    ['a reply without text', `{ kind: 'reply', id: 1 }`],
    ['what no version knows', `{ kind: 'other', id: 1, text: 'x' }`],
    ['a failure without message', `{ kind: 'threw', id: 1 }`],
  ])('that sends %s on the port of its thread answers all the same', async (_what, message) => {
    const scheduler = await load(
      `import { parentPort } from 'node:worker_threads'\nexport function schedule(question) { parentPort.postMessage(${message}); return ${ANSWER} }`,
    )
    expect(await ask(scheduler)).toMatchObject({ kind: 'answered' })
  })

  it('an endless loop costs its deadline and nothing else; the next question finds the module loaded anew', async () => {
    const scheduler = await load(
      `export function schedule(question) { if (question.count === 1) for (;;) {} return ${ANSWER} }`,
      1_000,
    )
    let turns = 0
    const timer = setInterval(() => (turns += 1), 10)
    expect(await ask(scheduler)).toMatchObject({ kind: 'failed', code: 'timeout' })
    clearInterval(timer)
    // This thread went on all the while.
    expect(turns).toBeGreaterThan(5)
    await expect
      .poll(() => askOnce(scheduler, { ...aQuestion(), count: 2 }, systemClock(), new AbortController().signal), {
        timeout: 30_000,
      })
      .toMatchObject({ kind: 'answered' })
  })

  it('cannot be started with a broken one: the error names the file, what is wrong and what to do', async () => {
    const limits = { deadlineMs: 250, maxCandidates: 10 }
    const configs = [
      { kind: 'module' as const, name: 'good', path: await moduleFile('export const schedule = () => {}'), ...limits },
      { kind: 'module' as const, name: 'absent', path: '/nowhere/pack.mjs', ...limits },
      { kind: 'module' as const, name: 'silent', path: await moduleFile('export const x = 1'), ...limits },
      { kind: 'module' as const, name: 'typo', path: await moduleFile('export const ='), ...limits },
    ]
    const error = await openSchedulers(configs, deps()).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(ConfigError)
    expect((error as ConfigError).message).toMatch(/schedulers\.absent: \/nowhere\/pack\.mjs cannot be used: .*Cannot find/)
    expect((error as ConfigError).message).toMatch(/schedulers\.silent: .*exports no function named schedule/)
    expect((error as ConfigError).message).toMatch(/schedulers\.typo: .*cannot be used/)
    expect((error as ConfigError).message).toContain('see docs/placement.md')
    expect((error as ConfigError).message).not.toContain('good')
  })
})
