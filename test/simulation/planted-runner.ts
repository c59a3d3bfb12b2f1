/**
 * `node test/simulation/planted-runner.ts replay|find [bug …]`: runs planted bugs and prints one JSON line for each. `replay` begins
 * with what caught the bug before (planted-corpus.json) and looks further only where that catches it no more; `find` looks
 * from the start and writes the corpus.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Victim } from './crash-points.ts'
import { PLANTED_BUGS } from './planted-bugs.ts'
import { plantBugs } from './planted-loader.ts'

export interface Catch {
  /** The story that catches it, as it is or with a crash after that effect of the coordinator or the agents. */
  readonly story: string | null
  readonly victim?: Victim
  readonly effect?: number
  /** The first seed that catches it of those tried; null: none did. */
  readonly seed: number | null
  /** Seeds tried. */
  readonly seedsTried: number
  /** What was violated, shortened. */
  readonly violation: string
}

export interface BugReport {
  readonly name: string
  readonly caught: boolean
  /** The corpus needs to be written anew: something else catches it now. */
  readonly stale: boolean
  readonly catch: Catch | null
}

const CORPUS = join(import.meta.dirname, 'planted-corpus.json')
/** A bug that more seeds do not show is not caught. */
export const MOST_SEEDS = 500
/** `find` tries this many seeds even where a story catches the bug. */
const FEW_SEEDS = 12

export function readCorpus(): Readonly<Record<string, Catch>> {
  return JSON.parse(readFileSync(CORPUS, 'utf8')) as Readonly<Record<string, Catch>>
}

type Stories = typeof import('./stories.ts')
type CrashPoints = typeof import('./crash-points.ts')
type Scenario = typeof import('./random-scenario.ts')

/** The simulator over the product with that bug; without one: as it is. */
async function simulatorWith(bug: string | null) {
  const query = bug === null ? '' : `?bug=${bug}`
  const { STORIES, FAULT_STORIES } = (await import(`./stories.ts${query}`)) as Stories
  const { runStory } = (await import(`./crash-points.ts${query}`)) as CrashPoints
  const { runSeed } = (await import(`./random-scenario.ts${query}`)) as Scenario
  const stories = [...STORIES, ...FAULT_STORIES]
  return {
    stories,
    crashStories: STORIES,
    async story(name: string, victim: Victim = 'coordinator', effect: number | null = null) {
      const story = stories.find((candidate) => candidate.name === name)
      if (!story) throw new Error(`there is no story ${name}`)
      return runStory(story, victim, effect)
    },
    seed: (seed: number) =>
      runSeed(seed).then(
        () => null,
        (error: unknown) => (error instanceof Error ? error.message : String(error)),
      ),
  }
}

type Simulator = Awaited<ReturnType<typeof simulatorWith>>

/** Runs again what caught it; null: it does not any more. */
async function again(simulator: Simulator, known: Catch | undefined): Promise<Catch | null> {
  if (!known) return null
  const failure =
    known.story === null
      ? await simulator.seed(known.seed ?? 1)
      : (await simulator.story(known.story, known.victim, known.effect ?? null)).failure
  return failure === null ? null : { ...known, violation: shortened(failure) }
}

async function byStory(simulator: Simulator): Promise<Omit<Catch, 'seed' | 'seedsTried'> | null> {
  const effects = new Map<string, number>()
  for (const { name } of simulator.stories) {
    const outcome = await simulator.story(name)
    if (outcome.failure !== null) return { story: name, violation: shortened(outcome.failure) }
    effects.set(name, outcome.effects)
  }
  return null
}

async function byCrash(simulator: Simulator): Promise<Omit<Catch, 'seed' | 'seedsTried'> | null> {
  for (const victim of ['coordinator', 'agents'] as const)
    for (const { name } of simulator.crashStories) {
      const { effects } = await simulator.story(name, victim)
      for (let effect = 1; effect <= effects; effect += 1) {
        const { failure } = await simulator.story(name, victim, effect)
        if (failure !== null) return { story: name, victim, effect, violation: shortened(failure) }
      }
    }
  return null
}

async function bySeed(simulator: Simulator, most: number): Promise<Pick<Catch, 'seed' | 'seedsTried' | 'violation'>> {
  for (let seed = 1; seed <= most; seed += 1) {
    const failure = await simulator.seed(seed)
    if (failure !== null) return { seed, seedsTried: seed, violation: shortened(failure) }
  }
  return { seed: null, seedsTried: most, violation: '' }
}

async function search(simulator: Simulator, few: number): Promise<Catch | null> {
  const told = await byStory(simulator)
  if (told) {
    const { seed, seedsTried } = await bySeed(simulator, few)
    return { ...told, seed, seedsTried }
  }
  const early = await bySeed(simulator, FEW_SEEDS)
  if (early.seed !== null) return { story: null, ...early }
  const crashed = await byCrash(simulator)
  if (crashed) return { ...crashed, seed: null, seedsTried: FEW_SEEDS }
  const late = await bySeed(simulator, MOST_SEEDS)
  return late.seed === null ? null : { story: null, ...late }
}

function shortened(failure: string): string {
  return (failure.split('\n')[0] ?? '').replace(/[a-z]+-[a-z0-9]{10,}/g, (id) => `${id.split('-')[0]}-…`).slice(0, 120)
}

async function main(mode: string | undefined, names: readonly string[]): Promise<void> {
  if (mode !== 'replay' && mode !== 'find') throw new Error('usage: planted-runner.ts replay|find [bug …]')
  plantBugs()
  const corpus = mode === 'replay' ? readCorpus() : {}
  const found: Record<string, Catch> = names.length > 0 && mode === 'find' ? { ...readCorpus() } : {}
  for (const { name } of PLANTED_BUGS) {
    if (names.length > 0 && !names.includes(name)) continue
    const simulator = await simulatorWith(name)
    const known = await again(simulator, corpus[name])
    const caught = known ?? (await search(simulator, mode === 'find' ? FEW_SEEDS : 0))
    if (caught) found[name] = caught
    const report: BugReport = { name, caught: caught !== null, stale: known === null, catch: caught }
    process.stdout.write(`${JSON.stringify(report)}\n`)
    if (mode === 'find') writeFileSync(CORPUS, `${JSON.stringify(found, null, 2)}\n`)
    if (!report.caught) process.exitCode = 1
  }
}

if (process.argv[1] === import.meta.filename) await main(process.argv[2], process.argv.slice(3))
