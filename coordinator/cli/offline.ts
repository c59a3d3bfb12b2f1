/** `up --dry-run` where no coordinator answers, or with `--offline`: what the app would be, placed on one assumed node. */
import { serviceId } from '../../shared/model/identity.ts'
import { formatBytes } from '../../shared/units.ts'
import { type AppRow, describeApp, formatReservation } from '../apps/dry-run.ts'
import { renderExplanation } from '../placement/explain.ts'
import { assumedNode, planOffline } from '../placement/plan-offline.ts'
import { EXIT, type ReadAppResult } from './io.ts'
import { counted, type Session } from './session.ts'
import { type Column, renderTable } from './table.ts'

/** Large enough for the demo applications that people try first; stated in the output. */
const ASSUMED = { cpuMillis: 16_000, memoryBytes: 64 * 2 ** 30, diskBytes: 500 * 2 ** 30, slots: 500 }

/** Prints the plan; `silentUrl` is the address where nothing answered, null when none was asked. Exit 0 whether or not everything fits: what does not would wait for a machine, and the plan says so. */
export function planWithoutCoordinator(session: Session, { spec, warnings }: ReadAppResult, silentUrl: string | null): number {
  const plan = planOffline(spec, [assumedNode('assumed-node', ASSUMED)])
  const waits = plan.refusals.map(({ instance, explanation }) => ({ instance, why: renderExplanation(explanation) }))
  const services = describeApp(spec, session.io.clock.now())
  const jobs = new Set(spec.services.flatMap(({ name, job }) => (job === undefined ? [] : [serviceId(spec.name, name)])))
  const ofJobs = plan.assignments.filter(({ request }) => jobs.has(request.service)).length
  const schedulers = [...new Set(spec.services.flatMap(({ placement }) => placement.scheduler ?? []))]
  const value = {
    app: spec.name,
    coordinator: null,
    assumedNode: ASSUMED,
    services,
    schedulersNotAsked: schedulers,
    placed: plan.assignments.length,
    waits,
    warnings,
  }
  session.print(value, () => [
    `App ${spec.name} on one assumed node of ${ASSUMED.cpuMillis / 1000} CPUs and ${formatBytes(ASSUMED.memoryBytes)} (${silentUrl === null ? 'no coordinator was asked' : `nothing answers at ${silentUrl}`}):`,
    ...renderTable(services, COLUMNS, { width: session.width, paint: session.paint }),
    ...services.flatMap(({ service, runs, schedules }) => [
      ...(runs === '' ? [] : [`${service}: runs ${runs}`]),
      ...schedules.map((schedule) => `${service}: ${schedule}`),
    ]),
    `${counted(plan.assignments.length - ofJobs, 'instance')} placed${ofJobs === 0 ? '' : `, and room for ${ofJobs} of jobs`}${waits.length === 0 ? '' : `, ${waits.length} would wait:`}`,
    ...(schedulers.length === 0
      ? []
      : [`Without a coordinator ${schedulers.join(', ')} cannot be asked: these are the choices of the built-in scheduler.`]),
    ...waits.map(({ instance, why }) => `  ${instance}: ${why}`),
    ...(silentUrl === null ? [] : ['→ To ask the cluster itself, name its coordinator with --url or RUBATO_URL.']),
  ])
  return EXIT.ok
}

const COLUMNS: readonly Column<AppRow>[] = [
  { title: 'SERVICE', value: ({ service, sidecars }) => [service, ...sidecars].join('+'), shrinkTo: 10 },
  { title: 'COUNT', value: ({ count, scale }) => (scale === '' ? count : `${count} by ${scale}`) },
  { title: 'RESERVED', value: formatReservation, shrinkTo: 8 },
  { title: 'PORTS', value: ({ ports }) => ports.join(', ') || '-', shrinkTo: 8 },
  { title: 'ACCESS', value: ({ access }) => access || '-', shrinkTo: 8 },
  { title: 'AFTER', value: ({ dependsOn }) => dependsOn.join(', ') || '-', shrinkTo: 5, optional: true },
  { title: 'IMAGE', value: ({ image }) => image, shrinkTo: 10 },
]
