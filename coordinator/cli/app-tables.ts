/** How services and instances look in a table. */
import type { InstanceView, ServiceView } from '../api/schemas.ts'
import { ago, bytes, cores, percent } from './session.ts'
import type { Column, Style } from './table.ts'

export const SERVICE_COLUMNS: readonly Column<ServiceView>[] = [
  { title: 'SERVICE', value: ({ id }) => id, shrinkTo: 12 },
  {
    title: 'READY',
    value: ({ ready, completed, desired, job }) => `${job === null ? ready : completed}/${desired}`,
    align: 'right',
    style: ({ ready, completed, desired, job }) => ((job === null ? ready : completed) >= desired ? 'good' : 'warn'),
  },
  { title: 'LOAD', value: ({ loadPercent }) => percent(loadPercent), align: 'right' },
  { title: 'SCALE', value: scaleText },
  {
    title: 'PORTS',
    value: ({ ports }) => ports.map(({ port, containerPort }) => `${port}→${containerPort}`).join(',') || '-',
    shrinkTo: 6,
  },
  { title: 'UPDATE', value: ({ rollout, job }) => jobText(job) ?? rollout?.phase ?? '-' },
  { title: 'IMAGE', value: ({ image }) => image, shrinkTo: 10 },
]

/** How its latest run stands, and when the next one is due; null for a service that goes on running. */
function jobText(job: ServiceView['job']): string | null {
  if (job === null) return null
  const [latest] = job.runs
  const state =
    latest === undefined
      ? 'not run yet'
      : latest.outcome === 'running'
        ? `running ${latest.succeeded}/${latest.completions}`
        : latest.outcome
  return job.nextRunAtMs === null ? state : `${state}, next ${new Date(job.nextRunAtMs).toISOString().slice(0, 16)}Z`
}

function scaleText({ pinned, scale, mode, job }: ServiceView): string {
  if (job !== null) return 'job'
  if (pinned !== null) return 'pinned'
  if (mode === 'global') return 'global'
  return scale === null ? 'fixed' : `${scale.min}-${scale.max}`
}

export function instanceColumns(nowMs: number): readonly Column<InstanceView>[] {
  return [
    { title: 'INSTANCE', value: ({ id }) => id, shrinkTo: 12 },
    { title: 'NODE', value: ({ node }) => node ?? '-', shrinkTo: 8 },
    { title: 'STATE', value: stateText, style: stateStyle, shrinkTo: 9 },
    { title: 'LOAD', value: ({ loadPercent }) => percent(loadPercent), align: 'right' },
    { title: 'CPU', value: ({ use }) => cores(use?.cpuMillis ?? null), align: 'right' },
    { title: 'MEM', value: ({ use }) => bytes(use?.memoryBytes ?? null), align: 'right' },
    { title: 'UP', value: ({ startedAtMs }) => ago(startedAtMs, nowMs), align: 'right' },
    { title: 'NOTE', value: ({ message }) => message, shrinkTo: 4 },
  ]
}

function stateText(instance: InstanceView): string {
  if (instance.crashLooping) return `crash-loop ×${instance.restarts}`
  if (instance.goal === 'stop' && instance.phase !== 'stopped')
    return instance.phase === 'draining' ? 'draining' : `${instance.phase}→stop`
  return instance.phase === 'ready' && !instance.healthy ? 'unhealthy' : instance.phase
}

function stateStyle(instance: InstanceView): Style {
  if (instance.crashLooping || instance.phase === 'failed' || instance.phase === 'lost') return 'bad'
  return instance.routable ? 'good' : 'warn'
}
