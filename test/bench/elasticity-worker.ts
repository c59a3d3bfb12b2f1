/**
 * M15: what a load that the application defines gains over CPU, memory and queue length, for a queue worker whose jobs differ in
 * run time and in what they use. Same jobs, same rule (planReplicas over its load window), only the source of the load differs.
 *
 * A day, job by job: short jobs that compute (2 s, exponential), and long ones that mostly wait for something else (40 s), whose share
 * swings between a twentieth and a half over hours, beside a daily swing of arrivals and a burst. An instance runs four jobs at once and
 * starts in 20 s; a stopped one finishes its jobs. A job shall start within 30 s. Generated from a seed; no constant was fitted to it.
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
  const rows = SOURCES.map(({ source, title }) => ({ source, title, runs: SEEDS.map((seed) => simulate(source, seed)) }))
  const mean = (runs: readonly ElasticityMetrics[], value: (metrics: ElasticityMetrics) => number) =>
    runs.reduce((sum, metrics) => sum + value(metrics), 0) / runs.length
  const custom = rows.find(({ source }) => source === 'custom')?.runs ?? []
  const results = rows
    .filter(({ source }) => source !== 'custom')
    .map(({ source, runs }): BenchResult => {
      const time = (all: readonly ElasticityMetrics[]) =>
        Math.max(
          SPEEDUP_FLOOR,
          mean(all, (m) => m.underTime),
        )
      const ratio = time(custom) / time(runs)
      const figures = (all: readonly ElasticityMetrics[]) =>
        `τ_U ${mean(all, (m) => m.underTime).toFixed(1)} %, late ${mean(all, (m) => m.beyondObjective).toFixed(2)} %, ${mean(all, (m) => m.machineHours).toFixed(0)} instance-hours`
      return {
        name: `elasticity.custom_load_underprovisioned_time_vs_${source}`,
        value: ratio,
        unit: '×',
        better: 'lower',
        target: 1,
        peer: `custom ${figures(custom)}; ${source} ${figures(runs)}`,
        ratio,
      }
    })
  const markdown = [
    '## Queue worker with unequal run times (M15)',
    '',
    'Means of three seeds; late: jobs that waited more than 30 s.',
    '',
    '| load | θ_U % | θ_O % | τ_U % | τ_O % | υ % | late % | instance-hours | steps /h |',
    '|---|--:|--:|--:|--:|--:|--:|--:|--:|',
    ...rows.map(({ title, runs }) => {
      const one = (value: (metrics: ElasticityMetrics) => number) => mean(runs, value).toFixed(1)
      return `| ${title} | ${one((m) => m.underAmount)} | ${one((m) => m.overAmount)} | ${one((m) => m.underTime)} | ${one((m) => m.overTime)} | ${one((m) => m.instability)} | ${mean(runs, (m) => m.beyondObjective).toFixed(2)} | ${one((m) => m.machineHours)} | ${one((m) => m.actionsPerHour)} |`
    }),
  ].join('\n')
  return { results, markdown }
}

/** Jobs per second and the share of long ones, at a second of the day. */
function mixAt(s: number): { readonly rate: number; readonly longShare: number } {
  const swing = 1.2 - Math.cos((2 * Math.PI * s) / DAY_S)
  const burst = s > 0.6 * DAY_S && s < 0.6 * DAY_S + 900 ? 2 : 1
  return { rate: 0.8 * swing * burst, longShare: 0.275 - 0.225 * Math.cos((6 * Math.PI * s) / DAY_S) }
}

function simulate(source: Source, seed: number): ElasticityMetrics {
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
      ready.map(({ jobs }) => report(source, jobs, waiting / ready.length, backlogS / ready.length)),
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
      memoryOnly: source === 'memory',
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
