/**
 * What must hold for an AppSpec beyond its shape, whoever made it: the API asks this again, because a client may send a spec
 * that readApp never saw. Pure.
 */
import { canonicalJson, specHashOf } from '../../shared/canonical.ts'
import type { Fault } from '../../shared/errors.ts'
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'
import { type AppPolicy, SAFE_POLICY } from './context.ts'
import { ROOT_CAPABILITIES } from './read-privileges.ts'
import { dangerOf } from './read-volumes.ts'
import { MIN_SINGLETON_MS } from './read-x-rubato.ts'
import { checkBounds } from './spec-bounds.ts'

export interface AppSpecCheck {
  /** The spec contradicts itself (HTTP 422). */
  readonly faults: readonly Fault[]
  /** The spec asks for what the policy forbids (HTTP 403). */
  readonly forbidden: readonly Fault[]
}

/** Checks a spec that already has the right shape. */
export function checkAppSpec(spec: AppSpec, policy: Partial<AppPolicy> = {}): AppSpecCheck {
  const faults: Fault[] = []
  const forbidden: Fault[] = []
  const names = new Set(spec.services.map((service) => service.name))
  if (names.size !== spec.services.length) faults.push({ path: '/services', message: 'two services have the same name' })
  faults.push(...checkBounds(spec))
  const taken = new Map<string, string>()
  spec.services.forEach((service, index) => {
    const path = `/services/${index}`
    checkService(service, path, names, faults)
    checkPublished(service, path, taken, faults)
    checkPolicy(service, path, { ...SAFE_POLICY, ...policy }, forbidden)
  })
  if (hasCycle(spec)) faults.push({ path: '/services', message: 'services wait for each other in a circle' })
  return { faults, forbidden }
}

function checkService(service: ServiceSpec, path: string, names: ReadonlySet<string>, faults: Fault[]): void {
  if (service.specHash !== specHashOf(service.unit))
    faults.push({ path: `${path}/specHash`, message: 'specHash is not that of the unit' })
  if (canonicalJson(service.published) !== canonicalJson(service.unit.published))
    faults.push({ path: `${path}/published`, message: 'published ports of service and unit differ' })
  service.dependsOn.forEach((dependency, index) => {
    if (!names.has(dependency.service))
      faults.push({ path: `${path}/dependsOn/${index}/service`, message: `there is no service "${dependency.service}"` })
  })
  const { scale, replicas } = service
  if (scale !== null && (scale.min > scale.max || scale.lowPercent > scale.highPercent))
    faults.push({ path: `${path}/scale`, message: 'min is larger than max, or low than high' })
  else if (scale !== null && service.mode === 'replicated' && (replicas < scale.min || replicas > scale.max))
    faults.push({ path: `${path}/replicas`, message: 'replicas is not between min and max' })
  if (scale !== null && service.mode === 'global')
    faults.push({ path: `${path}/scale`, message: 'a global service cannot scale' })
  if (service.placement.scheduler !== undefined && service.mode === 'global')
    faults.push({ path: `${path}/placement/scheduler`, message: 'a global service runs on every node: no scheduler can choose' })
  scale?.schedules?.forEach((schedule, index) => {
    if (schedule.min > schedule.max || schedule.min < scale.min || schedule.max > scale.max)
      faults.push({ path: `${path}/scale/schedules/${index}`, message: 'its bounds are not within min and max of the scaling' })
  })
  const { singletonStrictMs } = service.unit
  if (singletonStrictMs !== null && singletonStrictMs < MIN_SINGLETON_MS)
    faults.push({ path: `${path}/unit/singletonStrictMs`, message: `it is at least ${MIN_SINGLETON_MS}` })
  if (service.job !== undefined) checkJob(service, path, faults)
  service.unit.containers.forEach((container, index) => {
    if (service.unit.runtime === 'docker' && container.image === '')
      faults.push({ path: `${path}/unit/containers/${index}/image`, message: 'the container has no image' })
  })
}

function checkJob({ job, scale, unit }: ServiceSpec, path: string, faults: Fault[]): void {
  if (scale !== null) faults.push({ path: `${path}/scale`, message: 'a job cannot scale' })
  if (unit.containers[0]?.restart.condition !== 'none')
    faults.push({
      path: `${path}/unit/containers/0/restart/condition`,
      message: 'a job is not restarted in place: write "none"; its retries are in job/retries',
    })
  if (unit.singletonStrictMs !== null && job !== undefined && (job.parallelism > 1 || job.cron?.overlap === 'allow'))
    faults.push({ path: `${path}/job`, message: 'a strict singleton may not run several times at once' })
}

function checkPublished(service: ServiceSpec, path: string, taken: Map<string, string>, faults: Fault[]): void {
  service.published.forEach((port, index) => {
    const key = `${port.port}/${port.protocol === 'udp' ? 'udp' : 'tcp'}`
    const before = taken.get(key)
    if (before === undefined) taken.set(key, `${port.mode} ${service.name}`)
    else if (!before.startsWith('host ') || port.mode !== 'host' || before === `host ${service.name}`)
      faults.push({ path: `${path}/published/${index}`, message: `port ${key} is published twice` })
  })
}

function checkPolicy(service: ServiceSpec, path: string, policy: AppPolicy, forbidden: Fault[]): void {
  service.unit.containers.forEach((container, index) => {
    const at = `${path}/unit/containers/${index}`
    if (container.privileged === true && !policy.allowPrivileged)
      forbidden.push({ path: `${at}/privileged`, message: 'privileged containers are forbidden' })
    if (container.hostNetwork === true && !policy.allowHostNetwork)
      forbidden.push({ path: `${at}/hostNetwork`, message: "the host's network is forbidden" })
    for (const name of container.capAdd)
      if (ROOT_CAPABILITIES.has(name.toUpperCase().replace(/^CAP_/, '')) && !policy.allowPrivileged)
        forbidden.push({ path: `${at}/capAdd`, message: `the capability ${name} is forbidden` })
    container.mounts.forEach((mount, mountIndex) => {
      if (mount.kind !== 'bind' || policy.allowHostMounts) return
      const isPlain = mount.source.startsWith('/') && !/(^|\/)\.{1,2}(\/|$)|\/\//.test(mount.source)
      const danger = isPlain
        ? dangerOf(mount.source.length > 1 ? mount.source.replace(/\/$/, '') : mount.source)
        : 'the path is not absolute and plain'
      if (danger !== null)
        forbidden.push({ path: `${at}/mounts/${mountIndex}`, message: `mounting ${mount.source} is forbidden: ${danger}` })
    })
  })
}

function hasCycle(spec: AppSpec): boolean {
  const edges = new Map(spec.services.map((service) => [service.name, service.dependsOn.map((dependency) => dependency.service)]))
  const state = new Map<string, 'open' | 'done'>()
  const visit = (name: string): boolean => {
    if (state.get(name) === 'open') return true
    if (state.get(name) === 'done') return false
    state.set(name, 'open')
    const found = (edges.get(name) ?? []).some(visit)
    state.set(name, 'done')
    return found
  }
  return spec.services.some((service) => visit(service.name))
}
