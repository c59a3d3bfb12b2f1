/** What is still to be done until the cluster is as it shall be (I10). */
import { CLUSTER_TAG } from '../../coordinator/providers/provider.ts'
import { isRoutable } from '../../coordinator/state/observed.ts'
import { wantedCount } from '../../coordinator/services/service-plan.ts'
import { parseInstanceId, serviceId } from '../../shared/model/identity.ts'
import type { SimCluster } from './cluster.ts'

const UNDER_WAY: ReadonlySet<string> = new Set(['progressing', 'monitoring', 'rolling-back'])

/** One sentence; null: it has converged. */
export function unsettled(cluster: SimCluster): string | null {
  const { coordinator } = cluster
  if (!coordinator) return 'no coordinator runs'
  const { snapshot } = coordinator.state
  const { observed } = coordinator.hub
  const wantedContainers = new Set<string>()
  for (const host of cluster.hosts.values()) {
    if (host.left) continue
    if (!host.nodeId || !host.agent) return `${host.name} has no agent`
    const node = observed.node(host.nodeId)
    if (!node?.connected) return `${host.name} is not connected`
    if (node.liveness !== 'live') return `${host.name} is ${node.liveness}`
  }
  for (const node of snapshot.all('node').values()) {
    if (node.availability === 'draining') return `node ${node.id} drains`
    if (observed.node(node.id)?.liveness !== 'live') return `node ${node.id} is ${observed.node(node.id)?.liveness}`
  }
  for (const machine of snapshot.all('machine').values())
    if (['requested', 'booting', 'joining', 'terminating'].includes(machine.phase))
      return `machine ${machine.id} is ${machine.phase}`
  for (const vm of cluster.provider.live()) {
    // Somebody else's.
    if (vm.tags[CLUSTER_TAG] !== coordinator.cluster.id) continue
    const known = [...snapshot.all('machine').values()].find((machine) => machine.name === vm.name)
    if (known?.phase !== 'joined') return `VM ${vm.name} exists, its machine is ${known?.phase ?? 'unknown'}`
  }
  for (const app of snapshot.all('app').values()) {
    if (app.removing) return `app ${app.name} is being removed`
    for (const spec of app.spec.services) {
      const id = serviceId(app.name, spec.name)
      const record = snapshot.get('service', id)
      if (!record) return `service ${id} has no record`
      if (record.rollout !== null && UNDER_WAY.has(record.rollout.phase)) return `${id}: rollout is ${record.rollout.phase}`
      const instances = snapshot.instancesOf(id)
      const active = [...snapshot.all('node').values()].filter((node) => node.availability === 'active').length
      const wanted = spec.mode === 'global' ? active : wantedCount(spec, record)
      if (instances.length !== wanted) return `${id} has ${instances.length} instances, wanted are ${wanted}`
      for (const instance of instances) {
        if (instance.goal !== 'run') return `${instance.id} shall stop`
        if (instance.specHash !== spec.specHash) return `${instance.id} has an old spec`
        const seen = observed.instance(instance.id)
        if (!seen || !isRoutable(seen, observed.node(seen.nodeId))) return `${instance.id} is ${seen?.phase ?? 'not observed'}`
        wantedContainers.add(instance.id)
      }
    }
  }
  for (const record of snapshot.all('service').values()) {
    const name = record.id.split('/')[0] ?? ''
    if (!snapshot.get('app', name)) return `service ${record.id} has no app`
  }
  for (const host of cluster.hosts.values())
    for (const container of host.engine.containers.values()) {
      if (!wantedContainers.has(container.request.instance)) return `${container.name} on ${host.name} is left over`
      if (container.state !== 'running') return `${container.name} on ${host.name} is ${container.state}`
      const record = snapshot.instances().get(container.request.instance)
      if (record?.nodeId !== host.nodeId) return `${container.name} runs on ${host.name}, its place is ${record?.nodeId}`
      wantedContainers.add(container.request.instance)
    }
  for (const host of cluster.hosts.values()) {
    for (const key of host.gateway?.open.keys() ?? []) {
      const instance = key.slice(0, key.lastIndexOf(':'))
      if (snapshot.instances().get(instance)?.nodeId !== host.nodeId) return `the way in to ${instance} is open on ${host.name}`
    }
    for (const { service, endpoints } of host.gateway?.routes ?? [])
      for (const { instance } of endpoints)
        if (!wantedContainers.has(instance)) return `${host.name} has a route of ${service} to ${instance}, which is gone`
  }
  const runs = cluster.running()
  for (const id of wantedContainers) if (!runs.has(id)) return `${id} does not run`
  for (const id of runs.keys()) if (parseInstanceId(id) === null) return `${id} is no instance`
  return null
}
