/**
 * What waits for the coordinator: of each instance the latest status, of the measurements the latest values with their counters
 * summed. Bounded by the number of instances, however long the coordinator is away; no status is dropped.
 */
import type { ForeignService, InstanceStatus, InstanceUse, NodeUse } from '../../shared/model/observation.ts'
import { PART_BYTES } from '../../shared/protocol/split-set.ts'

export interface Report {
  readonly node: NodeUse | null
  readonly instances: readonly InstanceUse[]
  /** Instances that are not listed have no value any more. */
  readonly full: boolean
  readonly foreign?: readonly ForeignService[]
}

export interface Outbox {
  addStatuses(statuses: readonly InstanceStatus[], gone: readonly string[]): void
  addReport(report: Report): void
  /** A new coordinator may know nothing: the next report gives every value again. `listed`: told in the inventory already. */
  reconnected(listed: ReadonlySet<string>): void
  /** Texts of status frames; empties that part. */
  takeStatuses(): readonly string[]
  /** Texts of report frames; empties that part. */
  takeReports(): readonly string[]
}

export function createOutbox(): Outbox {
  const statuses = new Map<string, InstanceStatus>()
  const gone = new Set<string>()
  /** Latest values of every instance; counters only of what was not sent. */
  const uses = new Map<string, InstanceUse>()
  const unsent = new Set<string>()
  let node: NodeUse | null = null
  let nodeUnsent = false
  let foreign: readonly ForeignService[] | null = null
  let foreignUnsent = false
  let full = false

  return {
    addStatuses(news, ended) {
      for (const status of news) {
        statuses.set(status.instance, status)
        gone.delete(status.instance)
      }
      for (const instance of ended) {
        gone.add(instance)
        uses.delete(instance)
        unsent.delete(instance)
      }
    },
    addReport(report) {
      if (report.node) {
        node = report.node
        nodeUnsent = true
      }
      if (report.foreign) {
        foreign = report.foreign
        foreignUnsent = true
      }
      if (report.full) {
        full = true
        const listed = new Set(report.instances.map((use) => use.instance))
        for (const instance of uses.keys())
          if (!listed.has(instance)) {
            uses.delete(instance)
            unsent.delete(instance)
          }
      }
      for (const use of report.instances) {
        const before = unsent.has(use.instance) ? uses.get(use.instance) : undefined
        uses.set(use.instance, before ? sum(before, use) : use)
        unsent.add(use.instance)
      }
    },
    reconnected(listed) {
      for (const instance of listed) statuses.delete(instance)
      for (const [instance, use] of uses)
        if (!unsent.has(instance)) uses.set(instance, { ...use, rxBytes: 0, txBytes: 0, requests: 0, errors: 0, denied: 0 })
      for (const instance of uses.keys()) unsent.add(instance)
      nodeUnsent = node !== null
      foreignUnsent = foreign !== null
      full = true
    },
    takeStatuses() {
      if (statuses.size === 0 && gone.size === 0) return []
      const chunks = chunked([...statuses.values()])
      const texts = chunks.map((chunk) => JSON.stringify({ type: 'status', statuses: chunk, gone: [] }))
      if (gone.size > 0) texts.push(JSON.stringify({ type: 'status', statuses: [], gone: [...gone] }))
      statuses.clear()
      gone.clear()
      return texts
    },
    takeReports() {
      if (unsent.size === 0 && !nodeUnsent && !foreignUnsent && !full) return []
      const values = [...unsent].flatMap((instance) => uses.get(instance) ?? [])
      const chunks = chunked(values)
      if (chunks.length === 0) chunks.push([])
      // Only a report that fits one frame can say that what it does not list has no value.
      const whole = full && chunks.length === 1
      const texts = chunks.map((chunk, index) =>
        JSON.stringify({
          type: 'report',
          node: index === 0 && nodeUnsent ? node : null,
          instances: chunk,
          full: whole,
          ...(index === 0 && foreignUnsent ? { foreign } : {}),
        }),
      )
      unsent.clear()
      nodeUnsent = false
      foreignUnsent = false
      full = false
      return texts
    },
  }
}

function sum(before: InstanceUse, next: InstanceUse): InstanceUse {
  return {
    ...next,
    rxBytes: before.rxBytes + next.rxBytes,
    txBytes: before.txBytes + next.txBytes,
    requests: before.requests + next.requests,
    errors: before.errors + next.errors,
    denied: before.denied + next.denied,
  }
}

/** Groups that each fit one frame. */
function chunked<T>(values: readonly T[]): T[][] {
  const chunks: T[][] = []
  let bytes = 0
  for (const value of values) {
    const size = Buffer.byteLength(JSON.stringify(value)) + 1
    const last = chunks.at(-1)
    if (last && bytes + size <= PART_BYTES) last.push(value)
    else {
      chunks.push([value])
      bytes = 0
    }
    bytes += size
  }
  return chunks
}
