/** What one node was sent of one kind of set, and the frames that bring it up to date. Revisions only rise, over reconnects too. */
import { type ChangeItem, splitSet } from '../../shared/protocol/split-set.ts'

export type SetKind = 'desired' | 'keys' | 'routes'

const FIELDS: Readonly<Record<SetKind, readonly string[]>> = {
  desired: ['put', 'remove'],
  keys: ['putKeys', 'removeKeys', 'putPolicies', 'removePolicies'],
  routes: ['put', 'remove'],
}

export interface SentSet {
  readonly revision: number
  /** Highest revision that the agent says it applied and saved in this session. */
  readonly acked: number
  /** A new session begins: nothing is acknowledged, and the next revision is above all that this agent has seen of our epoch. */
  restart(agentRevision: number): void
  ack(revision: number): void
  /** Texts of the frames of a full set. */
  full(items: readonly ChangeItem[], extra?: Readonly<Record<string, unknown>>): readonly string[]
  /** Texts of the frames of a change. */
  delta(items: readonly ChangeItem[]): readonly string[]
}

export function createSentSet(kind: SetKind, epoch: number): SentSet {
  let revision = 0
  let acked = 0
  const texts = (items: readonly ChangeItem[], baseRevision: number | null, extra: Readonly<Record<string, unknown>>) => {
    const parts = splitSet(FIELDS[kind], items)
    const head = JSON.stringify({ type: kind, epoch, revision, baseRevision, ...extra }).slice(0, -1)
    return parts.map((part, index) => `${head},${part}${index < parts.length - 1 ? ',"more":true' : ''}}`)
  }
  return {
    get revision() {
      return revision
    },
    get acked() {
      return acked
    },
    restart(agentRevision) {
      acked = 0
      revision = Math.max(revision, agentRevision)
    },
    ack(value) {
      // An agent cannot have applied what was not sent.
      if (value <= revision) acked = Math.max(acked, value)
    },
    full(items, extra = {}) {
      revision += 1
      return texts(items, null, extra)
    },
    delta(items) {
      const base = revision
      revision += 1
      return texts(items, base, {})
    },
  }
}

/** JSON of objects that never change, made once however many nodes get them. */
export function createJsonMemo(): (value: object) => string {
  const memo = new WeakMap<object, string>()
  return (value) => {
    const known = memo.get(value)
    if (known !== undefined) return known
    const text = JSON.stringify(value)
    memo.set(value, text)
    return text
  }
}

export function putItems(field: string, values: Iterable<object>, jsonOf: (value: object) => string): ChangeItem[] {
  return [...values].map((value) => ({ field, json: jsonOf(value) }))
}

export function removeItems(field: string, keys: Iterable<string>): ChangeItem[] {
  return [...keys].map((key) => ({ field, json: JSON.stringify(key) }))
}
