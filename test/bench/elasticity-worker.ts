/**
 * M15: what a load that the application defines gains over CPU, memory and queue length, for a queue worker whose jobs differ in
 * run time and in what they use. Same jobs, same rule (planReplicas over its load window), only the source of the load differs.
 *
 * A day, job by job: short jobs that compute (2 s, exponential), and long ones that mostly wait for something else (40 s), whose share
 * swings between a twentieth and a half over hours, beside a daily swing of arrivals and a burst. An instance runs four jobs at once and
 * starts in 20 s; a stopped one finishes its jobs. A job shall start within 30 s. Generated from a seed; no constant was fitted to it.
 *
 * What counts as full is anybody's choice for CPU, memory and queue length, and buys capacity: so each of them also runs with the
 * choice, found in hindsight, that costs as many instance-hours as the custom load, and the figures compare with that one.
 */
import { createElasticityMeter, type ElasticityMetrics, SPEEDUP_FLOOR } from '../../coordinator/simulate/elasticity-metrics.ts'
import { poisson } from '../../coordinator/simulate/demand.ts'
import { createLoadWindow, type LoadReport } from '../../coordinator/scaling/load-window.ts'
import { planReplicas, type ScaleAction } from '../../coordinator/scaling/plan-replicas.ts'
import { seededRandom } from '../../shared/random.ts'
import { aScale } from '../builders/specs.ts'
import type { BenchResult } from './result.ts'

const DAY_S = 86_400
const SLOTS = 4
const START_S = 20
const WAIT_S = 30
const SHORT = { seconds: 2, cpuPercent: 95, memoryPercent: 5 } as const
const LONG = { seconds: 40, cpuPercent: 8, memoryPercent: 12 } as const
/** Of an instance's memory, in use whatever it does. */
const IDLE_MEMORY_PERCENT = 30
/** Jobs waiting and running per instance that count as full, for the load by queue length: the slots, and as many again. */
const QUEUE_FULL = 2 * SLOTS
/** Load of an instance whose slots are all busy while nothing waits. */
const BUSY_LOAD = 0.75
const SEEDS = [11, 12, 13]
/** Where and how finely the choice of what is full is looked for: halving in steps of a factor. */
const MOST_GAIN = 8
const GAIN_STEPS = 8

interface Job {
  readonly isLong: boolean
  readonly arrivedS: number
  leftS: number
}

interface Instance {
  readonly readyS: number
  readonly jobs: Job[]
  isStopping: boolean
}

type Source = 'custom' | 'cpu' | 'memory' | 'queue'

const SOURCES: readonly { readonly source: Source; readonly title: string }[] = [
  { source: 'custom', title: 'custom: busy slots, and what waits by its usual run time' },
  { source: 'cpu', title: 'CPU' },
  { source: 'memory', title: 'memory' },
  { source: 'queue', title: `queue length (${QUEUE_FULL} jobs per instance are full)` },
]

export function benchQueueWorker(): { readonly results: readonly BenchResult[]; readonly markdown: string } {
  const custom = runsOf('custom', 1)
  const others = SOURCES.filter(({ source }) => source !== 'custom').map(({ source, title }) => ({
    source,
    title,
    plain: runsOf(source, 1),
    matched: matchHours(source, mean(custom, hoursOf)),
  }))
  const results = others.map(({ source, plain, matched }): BenchResult => {
    const ratio = underTime(custom) / underTime(matched.runs)
    return {
      name: `elasticity.custom_load_underprovisioned_time_vs_${source}`,
      value: ratio,
      unit: '×',
      better: 'lower',
      target: null,
      peer: `custom ${figures(custom)}; ${source} at about these hours (load × ${matched.gain.toFixed(2)}) ${figures(matched.runs)}; as it is ${figures(plain)}`,
      ratio,
    }
  })
  const rows = [
    { title: SOURCES[0]?.title ?? '', runs: custom },
    ...others.flatMap(({ title, plain, matched }) => [
      { title, runs: plain },
      { title: `${title}, × ${matched.gain.toFixed(2)} for the hours of the custom load`, runs: matched.runs },
    ]),
  ]
  const markdown = [
    '## Queue worker with unequal run times (M15)',
    '',
    'Means of three seeds; late: jobs that waited more than 30 s. Each source but the custom one also with its load multiplied so that it',
    'costs about as many instance-hours, a tuning in hindsight.',
    '',
    '| load | θ_U % | θ_O % | τ_U % | τ_O % | υ % | late % | instance-hours | steps /h |',
    '|---|--:|--:|--:|--:|--:|--:|--:|--:|',
    ...rows.map(({ title, runs }) => {
      const one = (value: (metrics: ElasticityMetrics) => number) => mean(runs, value).toFixed(1)
      return `| ${title} | ${one((m) => m.underAmount)} | ${one((m) => m.overAmount)} | ${one((m) => m.underTime)} | ${one((m) => m.overTime)} | ${one((m) => m.instability)} | ${mean(runs, (m) => m.beyondObjective).toFixed(2)} | ${one(hoursOf)} | ${one((m) => m.actionsPerHour)} |`
    }),
  ].join('\n')
  return { results, markdown }
}

function runsOf(source: Source, gain: number): readonly ElasticityMetrics[] {
  return SEEDS.map((seed) => simulate(source, seed, gain))
}

/** The source with its load multiplied so that it costs about so many instance-hours: more load, more instances. */
function matchHours(source: Source, hours: number): { readonly gain: number; readonly runs: readonly ElasticityMetrics[] } {
  let [low, high] = [1 / MOST_GAIN, MOST_GAIN]
  let best = { gain: 1, runs: runsOf(source, 1) }
  for (let step = 0; step < GAIN_STEPS; step += 1) {
    const gain = Math.sqrt(low * high)
    const runs = runsOf(source, gain)
    if (Math.abs(mean(runs, hoursOf) - hours) < Math.abs(mean(best.runs, hoursOf) - hours)) best = { gain, runs }
    if (mean(runs, hoursOf) < hours) low = gain
    else high = gain
  }
  return best
}

function mean(runs: readonly ElasticityMetrics[], value: (metrics: ElasticityMetrics) => number): number {
  return runs.reduce((sum, metrics) => sum + value(metrics), 0) / runs.length
}

function hoursOf(metrics: ElasticityMetrics): number {
  return metrics.machineHours
}

function underTime(runs: readonly ElasticityMetrics[]): number {
  return Math.max(
    SPEEDUP_FLOOR,
    mean(runs, (m) => m.underTime),
  )
}

function figures(runs: readonly ElasticityMetrics[]): string {
  return `τ_U ${mean(runs, (m) => m.underTime).toFixed(1)} %, late ${mean(runs, (m) => m.beyondObjective).toFixed(2)} %, ${mean(runs, hoursOf).toFixed(0)} instance-hours`
}

/** Jobs per second and the share of long ones, at a second of the day. */
function mixAt(s: number): { readonly rate: number; readonly longShare: number } {
  const swing = 1.2 - Math.cos((2 * Math.PI * s) / DAY_S)
  const burst = s > 0.6 * DAY_S && s < 0.6 * DAY_S + 900 ? 2 : 1
  return { rate: 0.8 * swing * burst, longShare: 0.275 - 0.225 * Math.cos((6 * Math.PI * s) / DAY_S) }
}

function simulate(source: Source, seed: number, gain: number): ElasticityMetrics {
  const random = seededRandom(seed)
  const rules = aScale({ min: 1, max: 200 })
  const window = createLoadWindow(rules.windowMs, rules.downWindowMs)
  const meter = createElasticityMeter()
  let instances: Instance[] = [newInstance(0), newInstance(0), newInstance(0)]
  let queue: Job[] = []
  let head = 0
  let backlogS = 0
  let wanted = instances.length
  let lastStep: { readonly from: number; readonly to: number; readonly atS: number } | null = null
  let meanBeforePercent: number | null = null
  let actions = 0
  let instanceSeconds = 0
  for (let s = 1; s <= DAY_S; s += 1) {
    const { rate, longShare } = mixAt(s)
    for (let count = poisson(rate, random); count > 0; count -= 1) {
      const isLong = random.next() < longShare
      const seconds = (isLong ? LONG : SHORT).seconds
      backlogS += seconds
      queue.push({ isLong, arrivedS: s, leftS: -Math.log(1 - random.next()) * seconds })
    }
    const arrivals = rate
    for (const { jobs } of instances) {
      for (const job of jobs) job.leftS -= 1
      for (let index = jobs.length - 1; index >= 0; index -= 1) if ((jobs[index]?.leftS ?? 0) <= 0) jobs.splice(index, 1)
    }
    instances = instances.filter(({ isStopping, jobs }) => !isStopping || jobs.length > 0)
    const ready = instances.filter(({ readyS, isStopping }) => readyS <= s && !isStopping)
    let lateJobs = 0
    // The emptiest takes the next job, as idle workers do.
    for (; head < queue.length; head += 1) {
      const job = queue[head]
      let idlest: Instance | null = null
      for (const each of ready) if (each.jobs.length < (idlest?.jobs.length ?? SLOTS)) idlest = each
      if (job === undefined || idlest === null) break
      if (s - job.arrivedS > WAIT_S) lateJobs += 1
      backlogS -= (job.isLong ? LONG : SHORT).seconds
      idlest.jobs.push(job)
    }
    if (head > 1_000) {
      queue = queue.slice(head)
      head = 0
    }

    const work = rate * (longShare * LONG.seconds + (1 - longShare) * SHORT.seconds)
    const demand = Math.max(1, Math.ceil(work / SLOTS))
    meter.add({ dtMs: 1000, demand, supply: ready.length, arrivals: Math.max(arrivals, lateJobs), late: lateJobs, failed: 0 })
    instanceSeconds += instances.length

    const waiting = queue.length - head
    window.add(
      s * 1000,
      ready.map(({ jobs }) => multiplied(report(source, jobs, waiting / ready.length, backlogS / ready.length), gain)),
    )
    const load = window.summary(s * 1000, START_S * 1000)
    const { actions: steps } = planReplicas({
      serviceId: 'shop/worker',
      rules,
      boundsNote: null,
      forecast: null,
      wanted,
      pinned: null,
      excluded: 0,
      ready: Math.min(ready.length, wanted),
      load,
      leadMs: START_S * 1000,
      lastStep: lastStep && { from: lastStep.from, to: lastStep.to, agoMs: 1000 * (s - lastStep.atS) },
      rolloutUnhealthy: false,
      memoryLed: source === 'memory',
      meanBeforePercent,
    })
    const action: ScaleAction | undefined = steps[0]
    if (action === undefined) continue
    actions += 1
    if (action.to > action.from) meanBeforePercent = load.meanPercent
    lastStep = { from: action.from, to: action.to, atS: s }
    for (let count = action.from; count < action.to; count += 1) instances.push(newInstance(s + START_S))
    const leaving = instances
      .filter(({ isStopping }) => !isStopping)
      .sort((a, b) => b.readyS - a.readyS || a.jobs.length - b.jobs.length)
    for (const instance of leaving.slice(0, Math.max(0, action.from - action.to))) instance.isStopping = true
    wanted = action.to
  }
  return meter.result({ machineHours: instanceSeconds / 3600, costUsd: 0, actions })
}

function newInstance(readyS: number): Instance {
  return { readyS, jobs: [], isStopping: false }
}

function multiplied({ loadPercent, demand }: LoadReport, gain: number): LoadReport {
  return { loadPercent: loadPercent === null ? null : Math.min(100, gain * loadPercent), demand }
}

/** `waiting` jobs and their usual run times in seconds, per ready instance. */
function report(source: Source, jobs: readonly Job[], waiting: number, backlogS: number): LoadReport {
  const sum = (value: (job: Job) => number) => jobs.reduce((total, job) => total + value(job), 0)
  switch (source) {
    case 'cpu':
      return { loadPercent: Math.min(100, sum((job) => (job.isLong ? LONG : SHORT).cpuPercent) / SLOTS), demand: null }
    case 'memory':
      return {
        loadPercent: Math.min(100, IDLE_MEMORY_PERCENT + sum((job) => (job.isLong ? LONG : SHORT).memoryPercent)),
        demand: null,
      }
    case 'queue':
      return { loadPercent: Math.min(100, (100 * (jobs.length + waiting)) / QUEUE_FULL), demand: null }
    case 'custom': {
      // Its developer knows the kinds of jobs, what they usually take, and that busy and keeping up is not full yet.
      const demand = (BUSY_LOAD * jobs.length) / SLOTS + backlogS / SLOTS / WAIT_S
      return { loadPercent: Math.min(100, 100 * demand), demand }
    }
  }
}
