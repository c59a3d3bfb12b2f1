/**
 * `make test-simulation SEEDS=3000 FIRST_SEED=1`: random lives of a cluster over all cores, then every crash point of the scripted
 * scenarios and every planted bug (unless ONLY names one of seeds, crashes, bugs). Ends with one JSON line
 * `{seeds, steps, violations, seconds}`; exit code 1 when anything was violated. `STORY=… VICTIM=… EFFECT=…` replays one crash point.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { runStory, type Victim } from './crash-points.ts'
import { runSeed, SeedFailure } from './random-scenario.ts'
import { FAULT_STORIES, STORIES, type Story } from './stories.ts'

/** One thing to try: a seed, or a story with the crash of one process after one of its effects. */
type Task =
  | { readonly kind: 'seed'; readonly seed: number }
  | { readonly kind: 'crash'; readonly story: string; readonly victim: Victim; readonly effect: number | null }

interface Report {
  readonly task: Task
  readonly steps: number
  /** Effects of the story's victim; 0 for seeds. */
  readonly effects: number
  /** null: every promise was kept. */
  readonly failure: string | null
  readonly tail: string
}

const WORKER = '--worker'
const ALL_STORIES = [...STORIES, ...FAULT_STORIES]
const VICTIMS = ['coordinator', 'agents'] as const satisfies readonly Victim[]
const RUNNER = join(import.meta.dirname, 'planted-runner.ts')
/** Seeds handed to a worker at once: enough to keep the talk small, few enough that all end together. */
const BATCH = 5
const TELL_EVERY_MS = 5_000

if (process.argv[2] === WORKER) work()
else process.exitCode = await lead()

function work(): void {
  process.on('message', (tasks: readonly Task[]) => {
    void (async () => {
      for (const task of tasks) process.send?.(await attempt(task))
      process.send?.('idle')
    })()
  })
  process.send?.('idle')
}

async function attempt(task: Task): Promise<Report> {
  const tailLines = Number(process.env.TAIL ?? 200)
  try {
    if (task.kind === 'seed')
      return { task, steps: (await runSeed(task.seed, tailLines)).steps, effects: 0, failure: null, tail: '' }
    return { task, ...(await runStory(storyNamed(task.story), task.victim, task.effect, tailLines)) }
  } catch (error) {
    if (error instanceof SeedFailure) return { task, steps: 0, effects: 0, failure: error.message, tail: error.tail }
    return {
      task,
      steps: 0,
      effects: 0,
      failure: error instanceof Error ? (error.stack ?? error.message) : String(error),
      tail: '',
    }
  }
}

async function lead(): Promise<number> {
  const only = process.env.ONLY ?? ''
  if (!['', 'seeds', 'crashes', 'bugs'].includes(only)) throw new Error(`ONLY is one of seeds, crashes, bugs, it is ${only}`)
  const first = wholeNumber('FIRST_SEED', 1)
  const count = wholeNumber('SEEDS', 500)
  const begunMs = performance.now()
  const seconds = () => Math.round((performance.now() - begunMs) / 10) / 100
  let steps = 0
  const failures: Report[] = []

  const runAll = async (name: string, tasks: readonly Task[]): Promise<readonly Report[]> => {
    const reports: Report[] = []
    const sinceMs = performance.now()
    let toldMs = sinceMs
    let next = 0
    const take = (report: Report) => {
      reports.push(report)
      steps += report.steps
      if (report.failure !== null) {
        failures.push(report)
        process.stdout.write(`${nameOf(report.task)}: ${report.failure}\n`)
      }
      if (performance.now() - toldMs < TELL_EVERY_MS) return
      toldMs = performance.now()
      const aMinute = Math.round((reports.length / (toldMs - sinceMs)) * 60_000)
      process.stdout.write(`${reports.length} of ${tasks.length} ${name}, ${failures.length} violations, ${aMinute} a minute\n`)
    }
    const runWorker = () =>
      new Promise<void>((resolve, reject) => {
        const child = fork(import.meta.filename, [WORKER])
        child.on('message', (message: Report | 'idle') => {
          if (message !== 'idle') return take(message)
          const some = tasks.slice(next, next + BATCH)
          next += some.length
          if (some.length > 0) child.send(some)
          else child.disconnect()
        })
        child.on('error', reject)
        child.on('exit', (code, signal) => {
          if (code === 0) resolve()
          else reject(new Error(`a worker ended with ${signal ?? code}`))
        })
      })
    const workers = Math.max(1, Math.min(wholeNumber('WORKERS', availableParallelism()), Math.ceil(tasks.length / BATCH)))
    await Promise.all(Array.from({ length: workers }, runWorker))
    return reports
  }

  let seeds = 0
  const replayed = crashToReplay()
  if (replayed !== null) await runAll('crash points', [replayed])
  else if (only === '' || only === 'seeds') {
    const tasks = Array.from({ length: count }, (_, index): Task => ({ kind: 'seed', seed: first + index }))
    seeds = (await runAll('seeds', tasks)).length
  }
  // One seed is a replay: the rest would only hide it.
  const isWhole = replayed === null && only === '' && count > 1
  if (replayed === null && (only === 'crashes' || isWhole)) {
    const whole = ALL_STORIES.flatMap((story) =>
      VICTIMS.map((victim): Task => ({ kind: 'crash', story: story.name, victim, effect: null })),
    )
    const told = await runAll('stories', whole)
    const crashes = told.flatMap(({ task, effects }) =>
      task.kind === 'crash' && storyNamed(task.story).crashes !== false
        ? Array.from({ length: effects }, (_, index): Task => ({ ...task, effect: index + 1 }))
        : [],
    )
    await runAll('crash points', crashes)
  }
  if (replayed === null && (only === 'bugs' || isWhole)) {
    const runner = fork(RUNNER, ['replay'], { stdio: 'inherit' })
    const [code] = (await once(runner, 'exit')) as [number | null]
    if (code !== 0)
      failures.push({ task: { kind: 'seed', seed: 0 }, steps: 0, effects: 0, failure: 'planted bugs are not caught', tail: '' })
  }

  const worst = failures.find((report) => report.tail !== '')
  if (worst) process.stdout.write(`\nthe end of ${nameOf(worst.task)}:\n${worst.tail}\n${nameOf(worst.task)}: ${worst.failure}\n`)
  process.stdout.write(`${JSON.stringify({ seeds, steps, violations: failures.length, seconds: seconds() })}\n`)
  return failures.length > 0 ? 1 : 0
}

function nameOf(task: Task): string {
  if (task.kind === 'seed') return `seed ${task.seed}`
  const replay = `make test-simulation STORY="${task.story}" VICTIM=${task.victim}${task.effect === null ? '' : ` EFFECT=${task.effect}`}`
  return `"${task.story}" with the death of ${task.victim} after effect ${task.effect ?? 'none'} (replay: ${replay})`
}

function storyNamed(name: string): Story {
  const story = ALL_STORIES.find((candidate) => candidate.name === name)
  if (!story) throw new Error(`there is no story "${name}"; there are: ${ALL_STORIES.map((each) => each.name).join(', ')}`)
  return story
}

/** `STORY="…" VICTIM=agents EFFECT=7`; without EFFECT the story as it is. null: none is named. */
function crashToReplay(): Task | null {
  const { STORY: story, VICTIM: victim = 'coordinator', EFFECT: effect } = process.env
  if (story === undefined) return null
  const known = VICTIMS.find((candidate) => candidate === victim)
  if (known === undefined) throw new Error(`VICTIM is one of ${VICTIMS.join(', ')}, it is ${victim}`)
  return {
    kind: 'crash',
    story: storyNamed(story).name,
    victim: known,
    effect: effect === undefined ? null : wholeNumber('EFFECT', 1),
  }
}

function wholeNumber(name: string, fallback: number): number {
  const text = process.env[name]
  if (text === undefined || text === '') return fallback
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 1) return value
  throw new Error(`${name} must be a whole number from 1 on, it is ${JSON.stringify(text)}`)
}
