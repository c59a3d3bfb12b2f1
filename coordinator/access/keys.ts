/**
 * API keys of users and services. The text of a key is given out once, when it is made; what is kept is a hash. Agents get the
 * live ones (see `liveKeys`) and check requests by themselves.
 */
import { compare } from '../../shared/compare.ts'
import type { Clock } from '../../shared/clock.ts'
import { newCredential } from '../../shared/credentials.ts'
import { ConflictError, type Fault, InputError, NotFoundError } from '../../shared/errors.ts'
import type { Ids } from '../../shared/ids.ts'
import type { KeyRecord, PushedKey } from '../../shared/model/access.ts'
import type { Random } from '../../shared/random.ts'
import type { Snapshot, State } from '../state/state.ts'
import { commitChange, createTurnstile } from './commit-change.ts'

export interface CreateKey {
  /** Unique among keys that are neither revoked nor expired. */
  readonly name: string
  readonly roles: readonly string[]
  /** Epoch ms; null: never. */
  readonly expiresAtMs: number | null
  /** Who asks, for the audit trail: `operator:<name>`. */
  readonly actor: string
}

export interface Keys {
  /** The new key's record, and its text, which nobody can show again. Throws InputError, ConflictError when the name is taken. */
  create(request: CreateKey): Promise<{ readonly record: KeyRecord; readonly text: string }>
  /** All keys, revoked and expired ones too, by name then id. */
  list(): readonly KeyRecord[]
  /** Ends a key, named by id or by name. Repeating it changes nothing. Throws NotFoundError. */
  revoke(idOrName: string, actor: string): Promise<KeyRecord>
}

export interface KeysDeps {
  readonly state: State
  readonly ids: Ids
  readonly random: Random
  readonly clock: Clock
}

/** No slash: `app/service` is the name of a service as a caller, and no key may look like one. */
const KEY_NAME = /^[a-zA-Z0-9][a-zA-Z0-9._@-]{0,62}$/
const ROLE = /^[a-z0-9][a-z0-9-]{0,62}$/
/** Pushed to every node that needs them: unbounded numbers would fill agents' memory. */
const MAX_LIVE_KEYS = 100_000
const MAX_ROLES = 32

export function createKeys({ state, ids, random, clock }: KeysDeps): Keys {
  // Uniqueness of a name spans objects, which compare-and-set per object cannot see: one at a time.
  const inTurn = createTurnstile()
  return {
    create: (request) =>
      inTurn(() => {
        const nowMs = clock.now()
        const faults = faultsOf(request, nowMs)
        if (faults.length > 0) throw new InputError('The key cannot be made.', faults)
        return commitChange(state, (change, snapshot) => {
          const live = [...snapshot.all('key').values()].filter((key) => isLive(key, nowMs))
          if (live.some((key) => key.name === request.name)) throw new ConflictError(`There is a live key named ${request.name}.`)
          if (live.length >= MAX_LIVE_KEYS) throw new ConflictError(`There are ${live.length} live keys; revoke some first.`)
          const id = ids.next('k')
          const { text, secretHash } = newCredential('rbt', id, random)
          const record: KeyRecord = {
            id,
            name: request.name,
            roles: [...new Set(request.roles)].sort(),
            secretHash,
            createdAtMs: nowMs,
            expiresAtMs: request.expiresAtMs,
            revokedAtMs: null,
          }
          change.put('key', id, record).event({
            actor: request.actor,
            type: 'key.created',
            subject: id,
            message: `Key ${request.name} was created.`,
            severity: 'info',
            data: { name: request.name, roles: record.roles, expiresAtMs: request.expiresAtMs },
          })
          return { record, text }
        })
      }),
    list: () => [...state.snapshot.all('key').values()].sort((a, b) => compare(a.name, b.name) || compare(a.id, b.id)),
    revoke: (idOrName, actor) =>
      inTurn(() =>
        commitChange(state, (change, snapshot) => {
          const key = findKey(snapshot, idOrName)
          if (!key) throw new NotFoundError(`There is no key ${idOrName}.`)
          if (key.revokedAtMs !== null) return key
          const revoked: KeyRecord = { ...key, revokedAtMs: clock.now() }
          change.put('key', key.id, revoked).event({
            actor,
            type: 'key.revoked',
            subject: key.id,
            message: `Key ${key.name} was revoked.`,
            severity: 'info',
            data: { name: key.name },
          })
          return revoked
        }),
      ),
  }
}

/** Keys that agents shall hold at `nowMs`: neither revoked nor expired, by id. Pure. */
export function liveKeys(snapshot: Snapshot, nowMs: number): readonly PushedKey[] {
  return [...snapshot.all('key').values()]
    .filter((key) => isLive(key, nowMs))
    .map(({ id, name, roles, secretHash, expiresAtMs }) => ({ id, name, roles, secretHash, expiresAtMs }))
    .sort((a, b) => compare(a.id, b.id))
}

function isLive(key: KeyRecord, nowMs: number): boolean {
  return key.revokedAtMs === null && (key.expiresAtMs === null || key.expiresAtMs > nowMs)
}

/** By id; else the live key of that name; else the one of that name that was revoked last. */
function findKey(snapshot: Snapshot, idOrName: string): KeyRecord | undefined {
  const byId = snapshot.get('key', idOrName)
  if (byId) return byId
  const named = [...snapshot.all('key').values()].filter((key) => key.name === idOrName)
  return named.sort((a, b) => (b.revokedAtMs ?? Infinity) - (a.revokedAtMs ?? Infinity) || compare(a.id, b.id))[0]
}

function faultsOf(request: CreateKey, nowMs: number): Fault[] {
  const faults: Fault[] = []
  if (!KEY_NAME.test(request.name))
    faults.push({ path: '/name', message: 'A name is 1 to 63 letters, digits, dots, dashes, @ or underscores.' })
  if (request.roles.length > MAX_ROLES) faults.push({ path: '/roles', message: `At most ${MAX_ROLES} roles.` })
  request.roles.forEach((role, index) => {
    if (!ROLE.test(role))
      faults.push({ path: `/roles/${index}`, message: 'A role is 1 to 63 lower-case letters, digits and dashes.' })
  })
  if (request.expiresAtMs !== null && !(Number.isFinite(request.expiresAtMs) && request.expiresAtMs > nowMs))
    faults.push({ path: '/expiresAtMs', message: 'The expiry lies in the past.' })
  return faults
}
