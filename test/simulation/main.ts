/**
 * `make test-simulation SEEDS=3000 FIRST_SEED=1`: random lives of a cluster over all cores, then every crash point of the scripted
 * scenarios and every planted bug (unless ONLY names one of seeds, crashes, bugs). Ends with one JSON line
 * `{seeds, steps, violations, seconds}`; exit code 1 when anything was violated.
 */
import { fork } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { runSeed, SeedFailure } from './random-scenario.ts'

export interface SeedReport {
  readonly seed: number
  readonly steps: number
  /** null: every promise was kept. */
  readonly failure: string | null
  readonly tail: string
}

const WORKER = '--worker'
/** Seeds handed to a worker at once: enough to keep the talk small, few enough that all end together. */
const BATCH = 5
const TELL_EVERY_MS = 5_000

if (process.argv[2] === WORKER) work()
else process.exitCode = await lead()

function work(): void {
  process.on('message', (seeds: readonly number[]) => {
    void (async () => {
      for (const seed of seeds) process.send?.(await report(seed))
      process.send?.('idle')
    })()
  })
  process.send?.('idle')
}

async function report(seed: number): Promise<SeedReport> {
  try {
    const { steps } = await runSeed(seed, Number(process.env.TAIL ?? 200))
    return { seed, steps, failure: null, tail: '' }
  } catch (error) {
    if (error instanceof SeedFailure) return { seed, steps: 0, failure: error.message, tail: error.tail }
    return { seed, steps: 0, failure: error instanceof Error ? (error.stack ?? error.message) : String(error), tail: '' }
  }
}

async function lead(): Promise<number> {
  const first = wholeNumber('FIRST_SEED', 1)
  const count = wholeNumber('SEEDS', 500)
  const workers = Math.max(1, Math.min(wholeNumber('WORKERS', availableParallelism()), Math.ceil(count / BATCH)))
  const begunMs = performance.now()
  const seconds = () => Math.round((performance.now() - begunMs) / 10) / 100
  let next = first
  let done = 0
  let steps = 0
  const failures: SeedReport[] = []
  let toldMs = begunMs
  const take = (report: SeedReport) => {
    done += 1
    steps += report.steps
    if (report.failure !== null) {
      failures.push(report)
      process.stdout.write(`seed ${report.seed}: ${report.failure}\n`)
    }
    if (performance.now() - toldMs < TELL_EVERY_MS) return
    toldMs = performance.now()
    process.stdout.write(
      `${done} of ${count} seeds, ${failures.length} violations, ${Math.round((done / seconds()) * 60)} a minute\n`,
    )
  }
  const runWorker = () =>
    new Promise<void>((resolve, reject) => {
      const child = fork(import.meta.filename, [WORKER])
      child.on('message', (message: SeedReport | 'idle') => {
        if (message !== 'idle') return take(message)
        const seeds = Array.from({ length: Math.min(BATCH, first + count - next) }, (_, index) => next + index)
        next += seeds.length
        if (seeds.length > 0) child.send(seeds)
        else child.disconnect()
      })
      child.on('error', reject)
      child.on('exit', (code, signal) => {
        if (code === 0) resolve()
        else reject(new Error(`a worker ended with ${signal ?? code}`))
      })
    })
  await Promise.all(Array.from({ length: workers }, runWorker))

  const worst = failures.sort((a, b) => a.seed - b.seed)[0]
  if (worst) process.stdout.write(`\nthe end of seed ${worst.seed}:\n${worst.tail}\nseed ${worst.seed}: ${worst.failure}\n`)
  process.stdout.write(`${JSON.stringify({ seeds: done, steps, violations: failures.length, seconds: seconds() })}\n`)
  return failures.length > 0 ? 1 : 0
}

function wholeNumber(name: string, fallback: number): number {
  const text = process.env[name]
  if (text === undefined || text === '') return fallback
  const value = Number(text)
  if (Number.isSafeInteger(value) && value >= 1) return value
  throw new Error(`${name} must be a whole number from 1 on, it is ${JSON.stringify(text)}`)
}
