/** `up --dry-run` without a coordinator: what the app would be, placed on one assumed node. */
import { formatBytes } from '../../shared/units.ts'
import { type AppRow, describeApp, formatReservation } from '../apps/dry-run.ts'
import { renderExplanation } from '../placement/explain.ts'
import { assumedNode, planOffline } from '../placement/plan-offline.ts'
import { EXIT, type ReadAppResult } from './io.ts'
import type { Session } from './session.ts'
import { type Column, renderTable } from './table.ts'

/** Large enough for the demo applications that people try first; stated in the output. */
const ASSUMED = { cpuMillis: 16_000, memoryBytes: 64 * 2 ** 30, diskBytes: 500 * 2 ** 30, slots: 500 }

/** Prints the plan. Exit 0 whether or not everything fits: what does not would wait for a machine, and the plan says so. */
export function planWithoutCoordinator(session: Session, { spec, warnings }: ReadAppResult): number {
  const plan = planOffline(spec, [assumedNode('assumed-node', ASSUMED)])
  const waits = plan.refusals.map(({ instance, explanation }) => ({ instance, why: renderExplanation(explanation) }))
  const services = describeApp(spec)
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
    `App ${spec.name} on one assumed node of ${ASSUMED.cpuMillis / 1000} CPUs and ${formatBytes(ASSUMED.memoryBytes)} (no coordinator is configured):`,
    ...renderTable(services, COLUMNS, { width: session.width, paint: session.paint }),
    `${plan.assignments.length} instances placed${waits.length === 0 ? '' : `, ${waits.length} would wait:`}`,
    ...(schedulers.length === 0
      ? []
      : [`Without a coordinator ${schedulers.join(', ')} cannot be asked: these are the choices of the built-in scheduler.`]),
    ...waits.map(({ instance, why }) => `  ${instance}: ${why}`),
  ])
  return EXIT.ok
}

const COLUMNS: readonly Column<AppRow>[] = [
  { title: 'SERVICE', value: ({ service, sidecars }) => [service, ...sidecars].join('+'), shrinkTo: 10 },
  { title: 'COUNT', value: ({ count, scale }) => (scale === '' ? count : `${count} by ${scale}`) },
  { title: 'RESERVED', value: formatReservation, shrinkTo: 8 },
  { title: 'PORTS', value: ({ ports }) => ports.join(', ') || '-', shrinkTo: 8 },
  { title: 'ACCESS', value: ({ access }) => access || '-', shrinkTo: 8 },
  { title: 'AFTER', value: ({ dependsOn }) => dependsOn.join(', ') || '-', shrinkTo: 5 },
  { title: 'IMAGE', value: ({ image }) => image, shrinkTo: 10 },
]
