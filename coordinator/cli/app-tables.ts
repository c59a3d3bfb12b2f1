/** How services and instances look in a table. */
import type { InstanceView, ServiceView } from '../api/schemas.ts'
import { ago, bytes, cores, percent } from './session.ts'
import type { Column, Style } from './table.ts'

const MARKS = 20

export function serviceColumns(nowMs: number): readonly Column<ServiceView>[] {
  return [
    ...STATE_COLUMNS,
    { title: 'SCALE', value: scaleText, dropOrder: 2 },
    {
      title: 'PORTS',
      value: ({ ports }) => ports.map(({ port, containerPort }) => `${port}→${containerPort}`).join(',') || '-',
      shrinkTo: 12,
      dropOrder: 3,
      optional: true,
    },
    { title: 'NOTE', value: (service) => noteOf(service, nowMs), shrinkTo: 24 },
    { title: 'IMAGE', value: ({ image }) => image, shrinkTo: 16, dropOrder: 1, optional: true },
  ]
}

/** As `top` shows them: with a bar of the load, in which the threshold is marked. */
export function topServiceColumns(nowMs: number): readonly Column<ServiceView>[] {
  return [
    ...STATE_COLUMNS,
    { title: '', value: ({ loadPercent, thresholdPercent }) => bar(loadPercent, thresholdPercent), dropOrder: 1 },
    { title: 'NOTE', value: (service) => noteOf(service, nowMs), shrinkTo: 6 },
  ]
}

const STATE_COLUMNS: readonly Column<ServiceView>[] = [
  { title: 'SERVICE', value: ({ id }) => id },
  {
    title: 'READY',
    value: ({ ready, completed, desired, job }) => `${job === null ? ready : completed}/${desired}`,
    align: 'right',
    style: ({ ready, completed, desired, job }) => ((job === null ? ready : completed) >= desired ? 'good' : 'warn'),
  },
  {
    title: 'LOAD',
    value: loadText,
    align: 'right',
    style: ({ loadPercent, thresholdPercent }) => ((loadPercent ?? 0) > (thresholdPercent ?? Infinity) ? 'warn' : 'plain'),
  },
  {
    title: 'P95',
    value: objectiveText,
    style: ({ objective }) => (objective?.kept === false ? 'bad' : 'plain'),
    dropOrder: 5,
    optional: true,
  },
  { title: 'EXPECTS', value: forecastText, align: 'right', dropOrder: 4, optional: true },
]

/** "62/76%": its load, and above which it gets more instances. */
function loadText({ loadPercent, thresholdPercent }: ServiceView): string {
  if (loadPercent === null || thresholdPercent === null) return percent(loadPercent)
  return `${Math.round(loadPercent)}/${percent(thresholdPercent)}`
}

/** "180/200ms ✓": what 95 % of the answers took in the last full minute, the objective, and whether it is kept. */
function objectiveText({ objective }: ServiceView): string {
  if (objective === null) return '-'
  const { p95Ms, latencyP95Ms, kept } = objective
  const measured = p95Ms === null ? '-' : String(Math.round(p95Ms))
  return `${measured}/${latencyP95Ms}ms${kept === null ? '' : kept ? ' ✓' : ' ✗'}`
}

/** "≤5": the instances that the peak of a trusted forecast would need at the threshold. */
function forecastText({ forecast, thresholdPercent }: ServiceView): string {
  if (forecast === null || !forecast.trusted || thresholdPercent === null || thresholdPercent <= 0) return '-'
  return `≤${Math.ceil(forecast.peakPercent / thresholdPercent)}`
}

/** What it waits for, what its update or its job does, or why it has the count it has: the first that there is. */
function noteOf({ waitsFor, rollout, job, lastScale }: ServiceView, nowMs: number): string {
  if (waitsFor !== null) return waitsFor
  if (rollout !== null && rollout.phase !== 'completed')
    return rollout.message === '' ? rollout.phase : `${rollout.phase}: ${rollout.message}`
  if (job !== null) return jobText(job, nowMs)
  return lastScale === null ? '-' : `${lastScale.from}→${lastScale.to} ${lastScale.reason}`
}

/** How its latest run stands, and when the next one is due. */
function jobText(job: NonNullable<ServiceView['job']>, nowMs: number): string {
  const [latest] = job.runs
  const state =
    latest === undefined
      ? 'not run yet'
      : latest.outcome === 'running'
        ? `running ${latest.succeeded}/${latest.completions}`
        : `${latest.outcome} ${latest.succeeded}/${latest.completions}`
  if (job.nextRunAtMs === null) return state
  return `${state}, next ${job.nextRunAtMs <= nowMs ? 'now' : `in ${ago(nowMs, job.nextRunAtMs)}`}`
}

function scaleText({ pinned, scale, mode, job }: ServiceView): string {
  if (job !== null) return 'job'
  if (pinned !== null) return 'pinned'
  if (mode === 'global') return 'global'
  return scale === null ? 'fixed' : `${scale.min}-${scale.max}`
}

function bar(loadPercent: number | null, thresholdPercent: number | null): string {
  const at = (value: number) => Math.round((Math.min(100, Math.max(0, value)) / 100) * MARKS)
  const filled = at(loadPercent ?? 0)
  const mark = thresholdPercent === null ? -1 : Math.min(MARKS - 1, at(thresholdPercent))
  return Array.from({ length: MARKS }, (_, index) => (index === mark ? '┃' : index < filled ? '█' : '·')).join('')
}

/** What `ps` lists: instances, and services that have none yet because they wait. */
export type InstanceRow = Pick<
  InstanceView,
  'id' | 'node' | 'phase' | 'loadPercent' | 'use' | 'startedAtMs' | 'message' | 'crashLooping' | 'restarts' | 'goal'
> &
  Pick<InstanceView, 'healthy' | 'routable'>

/** The row of a service that wants instances and has none: "shop/web  -  waiting  …  starts after shop/api". */
export function waitingRow({ id, waitsFor }: ServiceView): InstanceRow {
  return {
    id,
    node: null,
    phase: 'waiting',
    loadPercent: null,
    use: null,
    startedAtMs: null,
    message: waitsFor ?? '',
    crashLooping: false,
    restarts: 0,
    goal: 'run',
    healthy: false,
    routable: false,
  }
}

export function instanceColumns(nowMs: number): readonly Column<InstanceRow>[] {
  return [
    { title: 'INSTANCE', value: ({ id }) => id },
    { title: 'NODE', value: ({ node }) => node ?? '-', shrinkTo: 8 },
    { title: 'STATE', value: stateText, style: stateStyle, shrinkTo: 9 },
    { title: 'LOAD', value: ({ loadPercent }) => percent(loadPercent), align: 'right', dropOrder: 4, optional: true },
    { title: 'CPU', value: ({ use }) => cores(use?.cpuMillis ?? null), align: 'right', dropOrder: 1, optional: true },
    { title: 'MEM', value: ({ use }) => bytes(use?.memoryBytes ?? null), align: 'right', dropOrder: 2, optional: true },
    { title: 'UP', value: ({ startedAtMs }) => ago(startedAtMs, nowMs), align: 'right', dropOrder: 3, optional: true },
    { title: 'NOTE', value: ({ message }) => message || '-', shrinkTo: 12, optional: true },
  ]
}

function stateText(instance: InstanceRow): string {
  if (instance.crashLooping) return `crash-loop ×${instance.restarts}`
  if (instance.goal === 'stop' && instance.phase !== 'stopped')
    return instance.phase === 'draining' ? 'draining' : `${instance.phase}→stop`
  return instance.phase === 'ready' && !instance.healthy ? 'unhealthy' : instance.phase
}

function stateStyle(instance: InstanceRow): Style {
  if (instance.crashLooping || instance.phase === 'failed' || instance.phase === 'lost') return 'bad'
  return instance.routable ? 'good' : 'warn'
}
