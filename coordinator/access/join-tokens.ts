/**
 * Join tokens: what turns a host into a node, once. Each is good for one use within 15 minutes; the one in a machine's user
 * data is bound to that machine instead, and good while the machine is awaited. Its text carries the digest of our certificate authority, so that the joining host can tell
 * the real coordinator from another one.
 */
import type { Clock } from '../../shared/clock.ts'
import { formatJoinToken, hashSecret } from '../../shared/credentials.ts'
import { type Fault, InputError } from '../../shared/errors.ts'
import { base62Secret, type Ids } from '../../shared/ids.ts'
import type { JoinTokenRecord } from '../../shared/model/access.ts'
import type { MachineId } from '../../shared/model/identity.ts'
import type { Random } from '../../shared/random.ts'
import type { Change, State } from '../state/state.ts'
import { commitChange } from './commit-change.ts'

export const JOIN_TOKEN_LIFE_MS = 15 * 60_000
/** How long past its expiry a token is remembered, so that a late second use is still told from a mistyped one. */
const REMEMBER_MS = 24 * 3_600_000
/** Old tokens forgotten per creation: keeps the commit within its limits. */
const FORGET_AT_ONCE = 20

export interface CreateJoinToken {
  /** The machine that it is for; null when a person asked. */
  readonly machineId: MachineId | null
  /** Labels of the node that joins with it. */
  readonly labels: Readonly<Record<string, string>>
  /** Default 15 min; 1 s to 24 h. */
  readonly lifeMs?: number
  readonly actor: string
}

export interface JoinTokens {
  /**
   * A fresh token; durable when it resolves. Several may live for one machine (each try of its creation makes one), of which one
   * can be used. Throws InputError.
   */
  create(request: CreateJoinToken): Promise<{ readonly record: JoinTokenRecord; readonly text: string }>
}

export interface JoinTokensDeps {
  readonly state: State
  readonly ids: Ids
  readonly random: Random
  readonly clock: Clock
  /** SHA-256 hex of the CA certificate; null for a coordinator that speaks plain HTTP on loopback. */
  readonly caDigest: string | null
}

export function createJoinTokens({ state, ids, random, clock, caDigest }: JoinTokensDeps): JoinTokens {
  return {
    async create(request) {
      const lifeMs = request.lifeMs ?? JOIN_TOKEN_LIFE_MS
      const faults = [...labelFaults(request.labels, '/labels')]
      if (!(lifeMs >= 1000 && lifeMs <= 24 * 3_600_000))
        faults.push({ path: '/lifeMs', message: 'A join token lives 1 second to 24 hours.' })
      if (faults.length > 0) throw new InputError('The join token cannot be made.', faults)
      const id = ids.next('j')
      const secret = base62Secret(random)
      const nowMs = clock.now()
      const record: JoinTokenRecord = {
        id,
        secretHash: hashSecret(secret),
        createdAtMs: nowMs,
        expiresAtMs: nowMs + lifeMs,
        machineId: request.machineId,
        labels: request.labels,
        usedBy: null,
      }
      await commitChange(state, (change, snapshot) => {
        forgetOld(change, snapshot.all('joinToken').values(), nowMs)
        change.put('joinToken', id, record).event({
          actor: request.actor,
          type: 'join-token.created',
          subject: id,
          message: request.machineId ? `A join token for machine ${request.machineId} was made.` : 'A join token was made.',
          severity: 'info',
          data: { machineId: request.machineId, expiresAtMs: record.expiresAtMs },
        })
      })
      return { record, text: formatJoinToken({ id, secret, caDigest }) }
    },
  }
}

const MAX_LABELS = 64
const LABEL_KEY = /^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,127}$/
const MAX_LABEL_VALUE = 256

/** What is wrong with a set of node labels. Pure. */
export function labelFaults(labels: Readonly<Record<string, string>>, path: string): readonly Fault[] {
  const faults: Fault[] = []
  const entries = Object.entries(labels)
  if (entries.length > MAX_LABELS) return [{ path, message: `At most ${MAX_LABELS} labels.` }]
  for (const [key, value] of entries) {
    if (!LABEL_KEY.test(key) || key === '__proto__')
      faults.push({
        path: `${path}/${key.slice(0, 60)}`,
        message: 'A label is 1 to 128 letters, digits, dots, dashes, slashes or underscores.',
      })
    else if (value.length > MAX_LABEL_VALUE || /[\u0000-\u001f\u007f]/.test(value))
      faults.push({ path: `${path}/${key}`, message: `A label's value is at most ${MAX_LABEL_VALUE} printable characters.` })
  }
  return faults
}

function forgetOld(change: Change, tokens: Iterable<JoinTokenRecord>, nowMs: number): void {
  let forgotten = 0
  for (const token of tokens) {
    if (token.expiresAtMs + REMEMBER_MS > nowMs) continue
    change.delete('joinToken', token.id)
    forgotten += 1
    if (forgotten === FORGET_AT_ONCE) return
  }
}
