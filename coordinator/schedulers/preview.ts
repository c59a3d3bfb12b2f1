/** Custom schedulers in a deploy: whether those that it names exist, and what they would choose. */
import { type Fault, InputError } from '../../shared/errors.ts'
import { nearest } from '../../shared/nearest.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import type { GroupAnswer } from '../placement/answers.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { type PlacementPlan, planPlacement } from '../placement/plan-placement.ts'
import { requestsOfApp } from '../placement/requests.ts'
import type { SchedulerDesk } from './desk.ts'

/** Throws InputError with each service that names a scheduler which is not among `known`. */
export function checkSchedulers(spec: AppSpec, known: readonly string[]): void {
  const faults = spec.services.flatMap(({ name, placement: { scheduler } }, index): Fault[] => {
    if (scheduler === undefined || known.includes(scheduler)) return []
    const near = nearest(scheduler, known)
    const message = `service ${name} names scheduler ${scheduler}, which the coordinator's configuration does not have`
    const hint =
      known.length === 0
        ? 'it has none: add it under "schedulers"'
        : `it has ${known.join(', ')}${near === null ? '' : `; did you mean ${near}?`}`
    return [{ path: `/spec/services/${index}/placement/scheduler`, message, hint }]
  })
  if (faults.length > 0) throw new InputError('the app names a scheduler that the coordinator does not have', faults)
}

/** Where the instances of an app would go if nothing ran; the schedulers that it names are asked. `why`: by group, why the built-in one chose. */
export async function previewPlacement(
  app: AppSpec,
  nodes: readonly PlacementNode[],
  desk: Pick<SchedulerDesk, 'preview'>,
): Promise<{ readonly plan: PlacementPlan; readonly why: ReadonlyMap<string, string> }> {
  const requests = requestsOfApp(app, nodes.length)
  const groups = new Map<string, PlacementRequest[]>()
  for (const request of requests)
    if (request.rules.scheduler !== undefined) groups.set(request.group, [...(groups.get(request.group) ?? []), request])
  const answers = new Map<string, GroupAnswer>()
  const why = new Map<string, string>()
  for (const [group, members] of groups) {
    const { service, rules } = members[0] as PlacementRequest
    const labels = app.services.find(({ name }) => service === `${app.name}/${name}`)?.labels ?? {}
    const consultation = await desk.preview(members, nodes, labels)
    if (consultation.kind === 'undecided') why.set(group, consultation.why)
    else answers.set(group, { scheduler: rules.scheduler as string, verdicts: consultation.verdicts, others: 'closed' })
  }
  return { plan: planPlacement({ requests, nodes, answers }), why }
}
