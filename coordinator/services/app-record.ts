/** How an app's record changes with a deploy, a rollback or its end. Pure. */
import type { AppSpec } from '../../shared/model/app.ts'
import { canonicalJson } from '../../shared/canonical.ts'
import { parseInstanceId } from '../../shared/model/identity.ts'
import type { AppRecord } from '../state/objects.ts'
import type { Snapshot } from '../state/state.ts'
import { MAX_COMMIT_BYTES } from '../state/store.ts'

export const MAX_HISTORY = 5
/** Leaves room for the service records and events of the same commit. */
export const MAX_RECORD_BYTES = MAX_COMMIT_BYTES - 60_000

type HistoryEntry = AppRecord['history'][number]

export function sameSpec(a: AppSpec, b: AppSpec): boolean {
  return canonicalJson(a) === canonicalJson(b)
}

/**
 * The first or next revision of an app. The revision before goes into the history, the oldest leave it, except those that alone tell
 * what an instance runs: without them its node would be told to end it. `running`: `service hash` of every instance of the app.
 */
export function nextRevision(
  before: AppRecord | undefined,
  next: { readonly spec: AppSpec; readonly source: string; readonly by: string; readonly failedReason?: string },
  now: number,
  running: ReadonlySet<string> = new Set(),
): AppRecord {
  const history = before === undefined ? [] : [historyEntry(before, next.failedReason), ...before.history]
  const needed = neededOf(next.spec, history, running)
  return fitted(
    {
      name: next.spec.name,
      revision: (before?.revision ?? 0) + 1,
      spec: next.spec,
      source: next.source,
      deployedAtMs: now,
      deployedBy: next.by,
      history: history.filter((entry, index) => index < MAX_HISTORY || needed.has(entry)),
      removing: false,
    },
    needed,
  )
}

/** `service hash` of every instance of the app, for `nextRevision`. */
export function runningOf(snapshot: Snapshot, app: string): ReadonlySet<string> {
  const running = new Set<string>()
  for (const record of snapshot.instances().values()) {
    const identity = parseInstanceId(record.id)
    if (identity?.app === app) running.add(`${identity.service} ${record.specHash}`)
  }
  return running
}

/** Entries that hold what instances run and nothing newer holds, and the newest one. */
function neededOf(spec: AppSpec, history: AppRecord['history'], running: ReadonlySet<string>): ReadonlySet<HistoryEntry> {
  const missing = new Set(running)
  const take = ({ services }: AppSpec) => services.filter((each) => missing.delete(`${each.name} ${each.specHash}`)).length > 0
  take(spec)
  return new Set(history.filter((entry, index) => take(entry.spec) || index === 0))
}

/** The newest earlier revision that differs from the present one and did not fail; undefined when there is none. */
export function rollbackTarget(app: AppRecord): AppRecord['history'][number] | undefined {
  return app.history.find((entry) => entry.failedReason === undefined && !sameSpec(entry.spec, app.spec))
}

function historyEntry(app: AppRecord, failedReason: string | undefined): AppRecord['history'][number] {
  const { revision, spec, source, deployedAtMs } = app
  return { revision, spec, source, deployedAtMs, ...(failedReason === undefined ? {} : { failedReason }) }
}

/**
 * Gives up the oldest history that nothing needs, then the texts of files, old ones first, so that the record fits into one
 * commit. What is too large even so is refused by `deployApp`.
 */
function fitted(app: AppRecord, needed: ReadonlySet<HistoryEntry>): AppRecord {
  let record = app
  while (bytesOf(record) > MAX_RECORD_BYTES) {
    const oldest = record.history.findLast((entry) => !needed.has(entry))
    if (oldest === undefined) break
    record = { ...record, history: record.history.filter((entry) => entry !== oldest) }
  }
  if (bytesOf(record) > MAX_RECORD_BYTES)
    record = { ...record, history: record.history.map((entry) => ({ ...entry, source: '' })) }
  if (bytesOf(record) > MAX_RECORD_BYTES) record = { ...record, source: '' }
  return record
}

/** Size of a record in the store. */
export function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value))
}
