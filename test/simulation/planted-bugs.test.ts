/** Tests of the tests: each planted bug is caught by what caught it before, and the same is green without it (the other suites). */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { PLANTED_BUGS } from './planted-bugs.ts'
import { DOCUMENT, withTable } from './planted-doc.ts'
import { faultOf } from './planted-loader.ts'
import { type BugReport, readCorpus } from './planted-runner.ts'
import { runStory } from './crash-points.ts'
import { runSeed } from './random-scenario.ts'
import { FAULT_STORIES, STORIES } from './stories.ts'

describe('planted bugs', () => {
  it('can be planted: every text that they change is there once', () => {
    expect(PLANTED_BUGS.map(faultOf).filter((fault) => fault !== null)).toEqual([])
    expect(PLANTED_BUGS.length).toBeGreaterThanOrEqual(20)
    expect(new Set(PLANTED_BUGS.map((bug) => bug.name)).size).toBe(PLANTED_BUGS.length)
  })

  it('are all caught', async () => {
    const runner = join(import.meta.dirname, 'planted-runner.ts')
    const { stdout } = await promisify(execFile)(process.execPath, [runner, 'replay'], { maxBuffer: 2 ** 24 }).catch(
      (error: { stdout: string }) => error,
    )
    const reports = stdout
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as BugReport)
    expect(reports.filter((report) => !report.caught).map((report) => report.name)).toEqual([])
    expect(reports.map((report) => report.name)).toEqual(PLANTED_BUGS.map((bug) => bug.name))
  }, 600_000)

  it('are what was caught: the same stories and seeds keep every promise without them', async () => {
    const corpus = Object.values(readCorpus())
    const stories = new Map(
      corpus.filter((known) => known.story !== null).map((known) => [`${known.story} ${known.effect}`, known]),
    )
    for (const known of stories.values()) {
      const story = [...STORIES, ...FAULT_STORIES].find((candidate) => candidate.name === known.story)
      if (story)
        expect(await runStory(story, known.victim ?? 'coordinator', known.effect ?? null)).toMatchObject({ failure: null })
    }
    for (const known of corpus) if (known.story === null && known.seed !== null) await runSeed(known.seed)
  }, 300_000)

  it('and their seeds stand in docs/simulation.md as they are (node test/simulation/planted-doc.ts)', () => {
    const text = readFileSync(DOCUMENT, 'utf8')
    expect(text).toBe(withTable(text))
  })
})
