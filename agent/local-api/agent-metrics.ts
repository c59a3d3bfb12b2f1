/** The agent's own metrics for Prometheus, fed with every sample. */
import { Counter, Gauge, Registry } from 'prom-client'
import { serviceIdOf } from '../../shared/model/identity.ts'
import type { InstanceUse, NodeUse } from '../../shared/model/observation.ts'

export interface AgentMetrics {
  /** Takes over one sample; instances that are no longer in it lose their series. */
  observe(sample: { readonly node: NodeUse; readonly instances: readonly InstanceUse[] }): void
  /** Everything in Prometheus' text format. */
  text(): Promise<string>
  /** For further metrics of the agent. */
  readonly registry: Registry
}

export function createAgentMetrics(memoryBytesOfAgent: () => number): AgentMetrics {
  const registry = new Registry()
  const registers = [registry]
  const gauge = (name: string, help: string, labelNames: string[] = []) => new Gauge({ name, help, labelNames, registers })
  const counter = (name: string, help: string) => new Counter({ name, help, labelNames: ['service', 'instance'], registers })
  const nodeCpu = gauge('rubato_node_cpu_millis', 'CPU in use on the node, thousandths of a core')
  const nodeMemory = gauge('rubato_node_memory_bytes', 'Memory in use on the node')
  const nodeDisk = gauge('rubato_node_disk_bytes', 'Disk in use on the node')
  const nodeRx = gauge('rubato_node_receive_bytes_per_second', 'Network traffic into the node')
  const nodeTx = gauge('rubato_node_transmit_bytes_per_second', 'Network traffic out of the node')
  const agentMemory = gauge('rubato_agent_resident_memory_bytes', 'Memory of the agent itself')
  const byInstance = ['service', 'instance']
  const load = gauge('rubato_instance_load_percent', 'Load of the instance, 0 to 100', byInstance)
  const cpu = gauge('rubato_instance_cpu_millis', 'CPU in use by the instance, thousandths of a core', byInstance)
  const memory = gauge('rubato_instance_memory_bytes', 'Memory in use by the instance', byInstance)
  const inFlight = gauge('rubato_instance_requests_in_flight', 'Requests under way to the instance', byInstance)
  const requests = counter('rubato_instance_requests_total', 'Requests that reached the instance')
  const errors = counter('rubato_instance_errors_total', 'Requests that ended in 5xx or without an answer')
  const denied = counter('rubato_instance_denied_total', 'Requests that the gateway refused for lack of a right')
  const rx = counter('rubato_instance_receive_bytes_total', 'Bytes to the instance')
  const tx = counter('rubato_instance_transmit_bytes_total', 'Bytes from the instance')
  const series = [load, cpu, memory, inFlight, requests, errors, denied, rx, tx]
  let known = new Map<string, { service: string; instance: string }>()

  return {
    registry,
    observe({ node, instances }) {
      nodeCpu.set(node.cpuMillis)
      nodeMemory.set(node.memoryBytes)
      nodeDisk.set(node.diskBytes)
      nodeRx.set(node.rxBytesPerS)
      nodeTx.set(node.txBytesPerS)
      agentMemory.set(memoryBytesOfAgent())
      const present = new Map<string, { service: string; instance: string }>()
      for (const use of instances) {
        const labels = { service: serviceIdOf(use.instance), instance: use.instance }
        present.set(use.instance, labels)
        if (use.loadPercent === null) load.remove(labels)
        else load.set(labels, use.loadPercent)
        cpu.set(labels, use.cpuMillis)
        memory.set(labels, use.memoryBytes)
        inFlight.set(labels, use.inFlight)
        requests.inc(labels, use.requests)
        errors.inc(labels, use.errors)
        denied.inc(labels, use.denied)
        rx.inc(labels, use.rxBytes)
        tx.inc(labels, use.txBytes)
      }
      for (const [instance, labels] of known) if (!present.has(instance)) for (const one of series) one.remove(labels)
      known = present
    },
    text: () => registry.metrics(),
  }
}
