/**
 * Decides whether a host that asks to join becomes a node, and what the node's record says. Pure.
 *
 * A token is used once. The same agent that lost our reply may ask again: it shows the retry proof of its first request, a
 * secret that it made itself and that only we have seen, and gets the same node and credential again, however late: the node is
 * there, and whoever holds the proof could as well hold the credential. Hostname and address prove nothing (a thief can name
 * them), so that without a proof every second use is refused.
 *
 * A person's token expires. A machine's is good while the machine is awaited (`fleet.joinDeadline`, on the steady clock): some
 * boot for half an hour, and a wall clock that jumps must not turn away a machine that is being paid for.
 */
import type { JoinTokenRecord } from '../../shared/model/access.ts'
import type { MachineId, NodeId } from '../../shared/model/identity.ts'
import type { MachineRecord, NodeRecord, Pool } from '../../shared/model/node.ts'
import type { JoinRequest } from '../../shared/protocol/join.ts'
import { believedCapacity, promisedCapacity } from '../fleet/believed-capacity.ts'

export interface JoinFacts {
  /** The record of the token whose secret was shown; undefined when there is none. */
  readonly token: JoinTokenRecord | undefined
  readonly secretMatches: boolean
  /** The digest of the authority that the token names is ours. */
  readonly digestMatches: boolean
  readonly proofHash: string | null
  /** Machine of the token, when it still has a record. */
  readonly machine: MachineRecord | undefined
  /** Pool of that machine, when it still has a record. */
  readonly pool: Pool | undefined
  /** Node that used the token, when it still has a record. */
  readonly usedBy: NodeRecord | undefined
}

export type JoinDecision =
  | { readonly kind: 'join' }
  /** The same agent asks again. */
  | { readonly kind: 'repeat'; readonly nodeId: NodeId }
  | {
      readonly kind: 'refuse'
      readonly status: 401 | 409 | 410
      readonly reason: string
      /** The token is good but was used before: somebody may have stolen it. */
      readonly reused: boolean
    }

export function planJoin(facts: JoinFacts, nowMs: number): JoinDecision {
  const { token, machine } = facts
  if (!token || !facts.secretMatches || !facts.digestMatches)
    return refuse(401, 'The join token is not one of this cluster (mistyped, or of another cluster).')
  if (token.usedBy !== null) {
    const sameAgent = facts.proofHash !== null && token.retryProofHash === facts.proofHash
    if (sameAgent && facts.usedBy) return { kind: 'repeat', nodeId: token.usedBy }
    return { ...refuse(409, 'The join token was used before; each is good for one node.'), reused: !sameAgent }
  }
  if (token.machineId === null)
    return nowMs < token.expiresAtMs ? { kind: 'join' } : refuse(401, 'The join token has expired; make a new one.')
  if (!machine || machine.phase === 'terminating' || machine.phase === 'gone' || machine.phase === 'lost')
    return refuse(410, 'The machine that the join token was made for is being deleted.')
  if (machine.nodeId !== null) return { ...refuse(409, 'The machine of the join token has joined already.'), reused: true }
  return { kind: 'join' }
}

function refuse(status: 401 | 409 | 410, reason: string): Extract<JoinDecision, { kind: 'refuse' }> {
  return { kind: 'refuse', status, reason, reused: false }
}

/** The record of the new node. Labels of pool and token win over what the host says of itself. */
export function nodeRecordOf(
  facts: Pick<JoinFacts, 'machine' | 'pool' | 'token'>,
  request: JoinRequest,
  node: { readonly id: NodeId; readonly credentialHash: string; readonly machineId: MachineId | null },
  nowMs: number,
): NodeRecord {
  return {
    id: node.id,
    hostname: request.hostname,
    address: request.address,
    labels: { ...request.labels, ...facts.pool?.labels, ...facts.token?.labels },
    ...(Object.keys(facts.token?.labels ?? {}).length > 0 ? { grantedLabels: facts.token?.labels ?? {} } : {}),
    engineLabels: request.engineLabels,
    taints: facts.pool?.taints ?? [],
    platform: request.platform,
    runtimes: [...new Set(request.runtimes)],
    capacity: believedCapacity(request.capacity, promisedCapacity(facts.machine, facts.pool)).capacity,
    pool: facts.machine?.pool ?? null,
    provider: facts.machine?.provider ?? null,
    zone: facts.pool?.zone ?? null,
    machineId: node.machineId,
    availability: 'active',
    drain: null,
    credentialHash: node.credentialHash,
    joinedAtMs: nowMs,
    agentVersion: request.agentVersion,
  }
}
