/**
 * Tokens of the people (and CI) that use the API. The first one is made at the first start: its text goes to the terminal once
 * and into `<stateDir>/admin.token` (0600), which its owner may delete.
 */
import { join } from 'node:path'
import { compare } from '../../shared/compare.ts'
import type { Clock } from '../../shared/clock.ts'
import { newCredential, parseCredential, secretMatches } from '../../shared/credentials.ts'
import { ConflictError, type Fault, InputError, NotFoundError } from '../../shared/errors.ts'
import type { Files } from '../../shared/files.ts'
import type { Ids } from '../../shared/ids.ts'
import type { OperatorRole, OperatorTokenRecord } from '../../shared/model/access.ts'
import type { Random } from '../../shared/random.ts'
import type { State } from '../state/state.ts'
import { commitChange, createTurnstile } from './commit-change.ts'

export interface Operator {
  readonly id: string
  readonly name: string
  readonly role: OperatorRole
}

export interface CreateOperatorToken {
  /** Unique. */
  readonly name: string
  readonly role: OperatorRole
  /** Epoch ms; null: never. */
  readonly expiresAtMs: number | null
  readonly actor: string
}

export interface OperatorTokens {
  /** The text is given out here and never again. Throws InputError, ConflictError when the name is taken. */
  create(request: CreateOperatorToken): Promise<{ readonly record: OperatorTokenRecord; readonly text: string }>
  /** Who holds this token, or null when it is malformed, unknown or expired; takes the same time for all of these. */
  verify(text: string): Operator | null
  /** By name. Expired ones too. */
  list(): readonly OperatorTokenRecord[]
  /** Ends a token, named by id or name. Throws NotFoundError, and ConflictError for the last admin token that never expires. */
  revoke(idOrName: string, actor: string): Promise<OperatorTokenRecord>
  /** Makes the first admin token when no token exists; null when some does. */
  ensureFirst(): Promise<{ readonly text: string; readonly path: string } | null>
}

export interface OperatorTokensDeps {
  readonly state: State
  readonly ids: Ids
  readonly random: Random
  readonly clock: Clock
  readonly files: Files
  readonly stateDir: string
}

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9._@-]{0,62}$/
/** Compared against when the id is unknown, so that the answer takes as long as for a known one. */
const DUMMY_HASH = '0'.repeat(64)
const ROLES: readonly OperatorRole[] = ['viewer', 'operator', 'admin']

export function createOperatorTokens({ state, ids, random, clock, files, stateDir }: OperatorTokensDeps): OperatorTokens {
  const inTurn = createTurnstile()
  const mint = ({ name, role, expiresAtMs }: Omit<CreateOperatorToken, 'actor'>) => {
    const id = ids.next('o')
    const { text, secretHash } = newCredential('rbto', id, random)
    return { text, record: { id, name, role, secretHash, createdAtMs: clock.now(), expiresAtMs } }
  }
  const store = (minted: { text: string; record: OperatorTokenRecord }, actor: string) =>
    commitChange(state, (change, snapshot) => {
      const { record } = minted
      const nowMs = clock.now()
      for (const other of snapshot.all('operatorToken').values()) {
        if (other.name !== record.name) continue
        if (!isExpired(other, nowMs)) throw new ConflictError(`There is a token named ${record.name}.`)
        change.delete('operatorToken', other.id)
      }
      change.put('operatorToken', record.id, record).event({
        actor,
        type: 'operator-token.created',
        subject: record.id,
        message: `Operator token ${record.name} with role ${record.role} was created.`,
        severity: 'info',
        data: { name: record.name, role: record.role, expiresAtMs: record.expiresAtMs },
      })
      return minted
    })

  return {
    create: (request) =>
      inTurn(() => {
        const faults = faultsOf(request, clock.now())
        if (faults.length > 0) throw new InputError('The token cannot be made.', faults)
        return store(mint(request), request.actor)
      }),
    verify(text) {
      const given = parseCredential('rbto', text)
      const record = given ? state.snapshot.get('operatorToken', given.id) : undefined
      const matches = secretMatches(given?.secret ?? '', record?.secretHash ?? DUMMY_HASH)
      if (!matches || !record || isExpired(record, clock.now())) return null
      return { id: record.id, name: record.name, role: record.role }
    },
    list: () => [...state.snapshot.all('operatorToken').values()].sort((a, b) => compare(a.name, b.name)),
    revoke: (idOrName, actor) =>
      inTurn(() =>
        commitChange(state, (change, snapshot) => {
          const all = [...snapshot.all('operatorToken').values()]
          const record = all.find((token) => token.id === idOrName) ?? all.find((token) => token.name === idOrName)
          if (!record) throw new NotFoundError(`There is no operator token ${idOrName}.`)
          const isLasting = (token: OperatorTokenRecord) => token.role === 'admin' && token.expiresAtMs === null
          if (isLasting(record) && all.filter(isLasting).length === 1)
            throw new ConflictError('This is the last admin token that does not expire; create another one first.')
          change.delete('operatorToken', record.id).event({
            actor,
            type: 'operator-token.revoked',
            subject: record.id,
            message: `Operator token ${record.name} was revoked.`,
            severity: 'info',
            data: { name: record.name, role: record.role },
          })
          return record
        }),
      ),
    ensureFirst: () =>
      inTurn(async () => {
        if (state.snapshot.all('operatorToken').size > 0) return null
        const minted = mint({ name: 'admin', role: 'admin', expiresAtMs: null })
        const path = join(stateDir, 'admin.token')
        // The file first: a crash in between leaves a file that the next start replaces, never a token that nobody knows.
        await files.write(path, `${minted.text}\n`, 0o600)
        await store(minted, 'access')
        return { text: minted.text, path }
      }),
  }
}

function isExpired(record: OperatorTokenRecord, nowMs: number): boolean {
  return record.expiresAtMs !== null && record.expiresAtMs <= nowMs
}

function faultsOf(request: CreateOperatorToken, nowMs: number): Fault[] {
  const faults: Fault[] = []
  if (!NAME.test(request.name))
    faults.push({ path: '/name', message: 'A name is 1 to 63 letters, digits, dots, dashes, @ or underscores.' })
  if (!ROLES.includes(request.role)) faults.push({ path: '/role', message: `A role is one of ${ROLES.join(', ')}.` })
  if (request.expiresAtMs !== null && !(Number.isFinite(request.expiresAtMs) && request.expiresAtMs > nowMs))
    faults.push({ path: '/expiresAtMs', message: 'The expiry lies in the past.' })
  return faults
}
