/** Custom schedulers in a deploy: whether those that it names exist, and what they would choose. */
import { type Fault, InputError } from '../../shared/errors.ts'
import { nearest } from '../../shared/nearest.ts'
import type { AppSpec } from '../../shared/model/app.ts'
import { type ServiceId, serviceId } from '../../shared/model/identity.ts'
import type { GroupAnswer } from '../placement/answers.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'
import { type PlacementPlan, planPlacement } from '../placement/plan-placement.ts'
import { countsOfApp, requestsOfApp } from '../placement/requests.ts'
import { byGroup, type SchedulerDesk } from './desk.ts'

/** Instances that one dry run looks at: it is planned on the thread that serves everybody, and anyone may ask for a hundred thousand. */
const MAX_INSTANCES = 2_000
/** Groups of which a dry run asks their schedulers: one after the other, so that placement always finds them free. */
const MAX_ASKED = 20

export interface PlacementPreview {
  readonly plan: PlacementPlan
  /** By group, why the built-in scheduler chose. */
  readonly why: ReadonlyMap<string, string>
  /** Instances that were not looked at, where there are any. */
  readonly left: readonly { readonly service: ServiceId; readonly count: number }[]
}

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

/**
 * Where the instances of an app would go if nothing ran; the schedulers that it names are asked. Its work is bounded: of a service no
 * more are looked at than would show that the nodes are full, of an app `MAX_INSTANCES`.
 */
export async function previewPlacement(
  app: AppSpec,
  nodes: readonly PlacementNode[],
  desk: Pick<SchedulerDesk, 'preview'>,
): Promise<PlacementPreview> {
  const wanted = countsOfApp(app, nodes.length)
  const slots = nodes.reduce((sum, node) => sum + Math.max(0, node.free.slots), 0)
  const counts = sharesOf(
    wanted.map((count) => Math.min(count, slots + 1)),
    MAX_INSTANCES,
  )
  const requests = requestsOfApp(app, nodes.length, counts)
  const answers = new Map<string, GroupAnswer>()
  const why = new Map<string, string>()
  let asked = 0
  for (const [group, members] of byGroup(requests)) {
    asked += 1
    if (asked > MAX_ASKED) {
      why.set(group, `a dry run asks about ${MAX_ASKED} services at most`)
      continue
    }
    const { service, rules } = members[0] as PlacementRequest
    const labels = app.services.find(({ name }) => service === `${app.name}/${name}`)?.labels ?? {}
    const consultation = await desk.preview(members, nodes, labels)
    if (consultation.kind === 'undecided') why.set(group, consultation.why)
    else answers.set(group, { scheduler: rules.scheduler as string, verdicts: consultation.verdicts, others: 'closed' })
  }
  const left = app.services.flatMap(({ name }, index) => {
    const count = (wanted[index] ?? 0) - (counts[index] ?? 0)
    return count > 0 ? [{ service: serviceId(app.name, name), count }] : []
  })
  return { plan: planPlacement({ requests, nodes, answers }), why, left }
}

/** Of each count as much as `total` allows: the small ones whole, the large ones alike. */
export function sharesOf(counts: readonly number[], total: number): readonly number[] {
  const shares = [...counts]
  let left = total
  const ascending = counts.map((count, index) => ({ count, index })).sort((a, b) => a.count - b.count)
  ascending.forEach(({ count, index }, done) => {
    const share = Math.min(count, Math.floor(left / (counts.length - done)))
    shares[index] = share
    left -= share
  })
  return shares
}
