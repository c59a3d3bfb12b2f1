/** The scheduler of examples/schedulers, as a module and over HTTP, with its configuration and its app file. */
import { spawn } from 'node:child_process'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readApp } from '../../coordinator/apps/read-app.ts'
import { loadCoordinatorConfig } from '../../coordinator/config.ts'
import { openSchedulers } from '../../coordinator/schedulers/open-schedulers.ts'
import type { Question } from '../../coordinator/schedulers/protocol.ts'
import { askOnce, type Scheduler } from '../../coordinator/schedulers/scheduler.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { aQuestion } from '../builders/scheduling.ts'

const ROOT = join(import.meta.dirname, '..', '..')
const FOLDER = join(ROOT, 'examples', 'schedulers')
const deps = { clock: systemClock(), logger: silentLogger() }
const open: Scheduler[] = []
afterAll(async () => {
  for (const scheduler of open) await scheduler.close()
})

const asked: Question = {
  ...aQuestion(),
  service: { ...aQuestion().service, labels: { 'coolest.max-use': '70' } },
  nodes: aQuestion(['cool', 'warm', 'hot']).nodes.map((node, index) => ({ ...node, usePercent: 35 * index })),
}
const expected = [
  ['cool', { kind: 'accept', score: 100, atMost: 1 }],
  ['warm', { kind: 'accept', score: 65, atMost: 1 }],
]
const verdictsOf = async (scheduler: Scheduler | undefined, question = asked) => {
  if (!scheduler) throw new Error('it was not opened')
  const outcome = await askOnce(scheduler, question, deps.clock, new AbortController().signal)
  return outcome.kind === 'answered' ? [...outcome.verdicts] : outcome
}

describe('examples/schedulers', () => {
  it('its configuration opens the module, and the module chooses', async () => {
    const config = await loadCoordinatorConfig({
      argv: ['--config', join(FOLDER, 'rubato.yaml')],
      env: {},
      readFile: (path) => readFile(path, 'utf8'),
      fileMode: async (path) => (await stat(path)).mode & 0o777,
    })
    const found = config.schedulers.find((each) => each.kind === 'module')
    if (found?.kind !== 'module') throw new Error('no module is configured')
    expect(found).toMatchObject({ name: 'coolest', deadlineMs: 250, maxCandidates: 1_000 })
    const path = join(ROOT, 'examples', 'schedulers', 'coolest.mjs')
    open.push(...(await openSchedulers([{ ...found, path, deadlineMs: 10_000 }], deps)))
    expect(await verdictsOf(open[0], { ...asked, nodes: asked.nodes.slice(0, 2) })).toEqual(expected)
    const hotter = asked.nodes.map((node) => ({ ...node, usePercent: 71 }))
    expect(await verdictsOf(open[0], { ...asked, nodes: hotter })).toEqual(
      ['cool', 'warm', 'hot'].map((id) => [id, { kind: 'reject', reason: 'too hot' }]),
    )
  })

  it('its server says the same over HTTP, to who brings the token', async () => {
    const server = spawn(process.execPath, [join(FOLDER, 'server.mjs'), '0'], {
      env: { TOKEN: 'word' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const [line] = (
        await new Promise<Buffer>((resolve, reject) => {
          server.stdout.once('data', resolve)
          server.once('exit', () => reject(new Error('the server ended')))
        })
      )
        .toString()
        .split('\n')
      const url = `http://127.0.0.1:${/\d+$/.exec(line ?? '')?.[0]}/`
      const common = { kind: 'http' as const, url, deadlineMs: 10_000, maxCandidates: 1_000, caPem: null }
      const [known, stranger] = await openSchedulers(
        [
          { ...common, name: 'known', token: 'word' },
          { ...common, name: 'stranger', token: null },
        ],
        deps,
      )
      if (known && stranger) open.push(known, stranger)
      expect(await verdictsOf(known, { ...asked, nodes: asked.nodes.slice(0, 2) })).toEqual(expected)
      expect(await verdictsOf(stranger)).toMatchObject({ kind: 'failed', detail: 'it answered with status 401' })
    } finally {
      server.kill()
    }
  })

  it('its app file names the scheduler', async () => {
    const fileName = join(FOLDER, 'app.yaml')
    const result = await readApp({
      text: await readFile(fileName, 'utf8'),
      fileName,
      environment: {},
      readFile: async () => null,
    })
    if (result.kind === 'refused') throw new Error(JSON.stringify(result.faults))
    expect(result.warnings).toEqual([])
    const [service] = result.app.services
    expect([service?.placement.scheduler, service?.labels]).toEqual(['coolest', { 'coolest.max-use': '70' }])
  })
})
