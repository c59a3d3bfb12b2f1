/** Which specification an instance record runs, among the revisions of its app that are still kept. Pure. */
import type { ServiceSpec } from '../../shared/model/app.ts'
import { parseInstanceId } from '../../shared/model/identity.ts'
import type { AppRecord, InstanceRecord } from '../state/objects.ts'

export interface KeptSpec {
  readonly revision: number
  readonly spec: ServiceSpec
}

/** All kept revisions of one service, newest first. */
export function specsOf(app: AppRecord, service: string): readonly KeptSpec[] {
  return [{ revision: app.revision, spec: app.spec }, ...app.history].flatMap(({ revision, spec }) => {
    const found = spec.services.find((candidate) => candidate.name === service)
    return found ? [{ revision, spec: found }] : []
  })
}

/**
 * The service as the record's own revision has it, else as the newest kept one with its hash has it: a service that no deploy
 * changes keeps the revision of its first one, which leaves the history long before the instance goes.
 */
export function specOfInstance(
  app: AppRecord | undefined,
  record: Pick<InstanceRecord, 'id' | 'revision' | 'specHash'>,
): ServiceSpec | undefined {
  const service = parseInstanceId(record.id)?.service
  if (app === undefined || service === undefined) return undefined
  const same = specsOf(app, service).filter(({ spec }) => spec.specHash === record.specHash)
  return (same.find(({ revision }) => revision === record.revision) ?? same[0])?.spec
}
