/** What a node's agent says of itself, checked and taken over into its record. Pure. */
import { isHostAddress, isHostName } from '../../shared/host-names.ts'
import type { NodeRecord } from '../../shared/model/node.ts'
import { canonicalJson } from '../../shared/canonical.ts'
import type { HelloFrame } from '../../shared/protocol/frames.ts'

const MAX_LABELS = 128
const MAX_LABEL_TEXT = 1024
const MAX_TEXT = 253
/** Of all labels that one agent tells: the node's record, which every action on the node stores anew, stays far from what a commit holds. */
const MAX_LABEL_BYTES = 48_000

/** Why these facts cannot be kept, or null. Bounds keep one agent from filling the store. */
export function factsFault(hello: HelloFrame): string | null {
  for (const [name, value] of Object.entries({
    hostname: hello.hostname,
    address: hello.address,
    platform: hello.platform,
    agentVersion: hello.agentVersion,
    bootId: hello.bootId,
  }))
    if (value.length > MAX_TEXT) return `${name} is longer than ${MAX_TEXT} characters`
  if (!isHostName(hello.hostname)) return 'hostname is none'
  if (!isHostAddress(hello.address)) return 'address is neither an IP address nor a host name'
  for (const [name, labels] of Object.entries({ labels: hello.labels, engineLabels: hello.engineLabels })) {
    const entries = Object.entries(labels)
    if (entries.length > MAX_LABELS) return `more than ${MAX_LABELS} ${name}`
    if (entries.some(([key, value]) => key.length > MAX_TEXT || value.length > MAX_LABEL_TEXT)) return `${name} are too long`
  }
  if (Buffer.byteLength(JSON.stringify([hello.labels, hello.engineLabels])) > MAX_LABEL_BYTES)
    return `labels take more than ${MAX_LABEL_BYTES} bytes`
  if (new Set(hello.runtimes).size < hello.runtimes.length) return 'a runtime is named twice'
  for (const revision of [hello.epoch, hello.desiredRevision, hello.keysRevision, hello.routesRevision])
    if (revision > 2 ** 50) return 'a revision is out of range'
  return null
}

/**
 * The record with these facts, or the same object when nothing changed. Labels of join token and pool win over what the agent says; what
 * it said before and says no longer is gone.
 */
export function withFacts(record: NodeRecord, hello: HelloFrame, poolLabels: Readonly<Record<string, string>>): NodeRecord {
  const next: NodeRecord = {
    ...record,
    hostname: hello.hostname,
    address: hello.address,
    platform: hello.platform,
    runtimes: hello.runtimes,
    capacity: hello.capacity,
    labels: { ...hello.labels, ...poolLabels, ...record.grantedLabels },
    engineLabels: hello.engineLabels,
    agentVersion: hello.agentVersion,
  }
  return canonicalJson(next) === canonicalJson(record) ? record : next
}
