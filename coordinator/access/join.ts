/** `POST /v1/join`: a host shows a join token and becomes a node. */
import type { Clock } from '../../shared/clock.ts'
import { parseJoinToken, secretMatches } from '../../shared/credentials.ts'
import { type ErrorCode, type Fault, InputError, InvariantError, RubatoError } from '../../shared/errors.ts'
import { isHostAddress, isHostName } from '../../shared/host-names.ts'
import type { Ids } from '../../shared/ids.ts'
import type { Logger } from '../../shared/logger.ts'
import type { JoinRequest, JoinResponse } from '../../shared/protocol/join.ts'
import type { Random } from '../../shared/random.ts'
import type { Snapshot, State } from '../state/state.ts'
import { CLUSTER_KEY } from './cluster.ts'
import { commitChange } from './commit-change.ts'
import { labelFaults } from './join-tokens.ts'
import { mintNodeCredential, retryProofHash } from './node-credentials.ts'
import { type JoinFacts, nodeRecordOf, planJoin } from './plan-join.ts'

/** The host may not join, and asking again with this token will not help. `status` is the HTTP status of the answer. */
export class JoinRefusedError extends RubatoError {
  readonly status: 401 | 409 | 410
  constructor(status: 401 | 409 | 410, message: string) {
    super(CODE_OF[status], message)
    this.status = status
  }
}

const CODE_OF: Readonly<Record<401 | 409 | 410, ErrorCode>> = { 401: 'unauthorized', 409: 'conflict', 410: 'conflict' }

export interface JoinDeps {
  readonly state: State
  readonly ids: Ids
  readonly random: Random
  readonly clock: Clock
  /** The coordinator's steady time: what orders and deadlines of machines are measured with. */
  steadyNowMs(): number
  readonly logger: Logger
  /** Coordinators that the new node shall dial, best first. */
  readonly urls: readonly string[]
  /** SHA-256 hex of our CA; null without TLS. */
  readonly caDigest: string | null
}

const DUMMY_HASH = '0'.repeat(64)
/** A refused token is reported once in this time: whoever keeps trying must not fill the audit trail. */
const REPORT_EVERY_MS = 60_000
const MAX_REPORTED = 1000

/**
 * The handler of joins. Resolves when the node is durable. Throws JoinRefusedError (401 unknown or expired token, 409 used
 * before, 410 its machine is being deleted), InputError, and UnavailableError when the store does not answer (to be repeated).
 */
export function createJoinHandler(deps: JoinDeps): (request: JoinRequest, remoteAddress: string | null) => Promise<JoinResponse> {
  const { state, ids, random, clock, logger, urls, caDigest } = deps
  const reportedAtMs = new Map<string, number>()

  const shouldReport = (tokenId: string) => {
    const nowMs = clock.monotonicMs()
    const last = reportedAtMs.get(tokenId)
    if (last !== undefined && nowMs - last < REPORT_EVERY_MS) return false
    reportedAtMs.delete(tokenId)
    reportedAtMs.set(tokenId, nowMs)
    if (reportedAtMs.size > MAX_REPORTED) for (const oldest of reportedAtMs.keys()) return reportedAtMs.delete(oldest)
    return true
  }

  return async (request, remoteAddress) => {
    const faults = requestFaults(request)
    if (faults.length > 0) throw new InputError('The request to join is malformed.', faults)
    const proof = request.retryProof ?? null

    const result = await commitChange(state, (change, snapshot) => {
      const facts = gatherFacts(snapshot, request, proof, caDigest)
      const cluster = snapshot.get('cluster', CLUSTER_KEY)
      if (!cluster) throw new InvariantError('a host asked to join before the cluster had a record')
      const decision = planJoin(facts, clock.now())
      const { token, machine } = facts
      if (decision.kind === 'refuse') {
        if (decision.reused && token && shouldReport(token.id))
          change.event({
            actor: 'access',
            type: 'token.reused',
            subject: token.usedBy ?? machine?.nodeId ?? token.id,
            message: `A join token was used a second time, from ${remoteAddress ?? 'an unknown address'}; it was refused. Check the node that joined with it.`,
            severity: 'warning',
            data: {
              token: token.id,
              remoteAddress,
              hostname: request.hostname,
              usedBy: token.usedBy,
              machineId: token.machineId,
            },
          })
        return decision
      }
      const nodeId = decision.kind === 'repeat' ? decision.nodeId : ids.next('n')
      const { text, secretHash } = mintNodeCredential(nodeId, proof, cluster.meshSecret, random)
      const response: JoinResponse = { clusterId: cluster.id, nodeId, credential: text, urls: [...urls] }
      if (decision.kind === 'repeat') return { kind: 'joined' as const, response, repeated: true }
      if (!token) throw new InvariantError('a join without a token was accepted')

      const machineId = machine?.id ?? null
      const nowMs = deps.steadyNowMs()
      const node = nodeRecordOf(facts, request, { id: nodeId, credentialHash: secretHash, machineId }, nowMs)
      change.put('node', nodeId, node)
      change.put('joinToken', token.id, {
        ...token,
        usedBy: nodeId,
        retryProofHash: proof === null ? null : retryProofHash(proof),
      })
      if (machine)
        change.put('machine', machine.id, { ...machine, phase: 'joined', nodeId, joinedAtMs: nowMs }).event({
          actor: 'fleet',
          type: 'machine.joined',
          subject: machine.id,
          message: `machine ${machine.id} joined as ${nodeId}`,
          severity: 'info',
          data: { node: nodeId, pool: machine.pool, afterMs: nowMs - machine.requestedAtMs },
        })
      change.event({
        actor: `node:${nodeId}`,
        type: 'node.joined',
        subject: nodeId,
        message: `${request.hostname} joined as node ${nodeId}${machine ? ` (machine ${machine.id})` : ''}.`,
        severity: 'info',
        data: { hostname: request.hostname, address: request.address, remoteAddress, machineId, token: token.id },
      })
      return { kind: 'joined' as const, response, repeated: false }
    })

    if (result.kind === 'refuse') {
      logger.info('a host was refused', {
        remoteAddress,
        hostname: request.hostname,
        status: result.status,
        reason: result.reason,
      })
      throw new JoinRefusedError(result.status, result.reason)
    }
    logger.info('a node joined', { nodeId: result.response.nodeId, remoteAddress, repeated: result.repeated })
    return result.response
  }
}

function gatherFacts(snapshot: Snapshot, request: JoinRequest, proof: string | null, caDigest: string | null): JoinFacts {
  const given = parseJoinToken(request.token)
  const token = given ? snapshot.get('joinToken', given.id) : undefined
  const machine = token?.machineId ? snapshot.get('machine', token.machineId) : undefined
  return {
    token,
    secretMatches: secretMatches(given?.secret ?? '', token?.secretHash ?? DUMMY_HASH),
    digestMatches: given !== null && given.caDigest === caDigest,
    proofHash: proof === null ? null : retryProofHash(proof),
    machine,
    pool: machine ? snapshot.get('pool', machine.pool) : undefined,
    usedBy: token?.usedBy ? snapshot.get('node', token.usedBy) : undefined,
  }
}

function requestFaults(request: JoinRequest): readonly Fault[] {
  const faults: Fault[] = [...labelFaults(request.labels, '/labels'), ...labelFaults(request.engineLabels, '/engineLabels')]
  if (!isHostName(request.hostname)) faults.push({ path: '/hostname', message: 'This is no host name.' })
  if (!isHostAddress(request.address))
    faults.push({ path: '/address', message: 'This is neither an IP address nor a host name.' })
  return faults
}
