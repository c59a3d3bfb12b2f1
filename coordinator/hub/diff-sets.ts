/** What must be sent so that a receiver's keyed set becomes another one. Pure. */

export interface SetDiff<T> {
  readonly put: readonly T[]
  readonly remove: readonly string[]
}

/** Elements of `next` that `previous` lacks or holds as another object, and keys that `next` no longer has. Compared by identity: planners reuse what did not change. */
export function diffSets<T>(previous: ReadonlyMap<string, T>, next: ReadonlyMap<string, T>): SetDiff<T> {
  if (previous === next) return { put: [], remove: [] }
  const put: T[] = []
  const remove: string[] = []
  for (const [key, value] of next) if (previous.get(key) !== value) put.push(value)
  for (const key of previous.keys()) if (!next.has(key)) remove.push(key)
  return { put, remove }
}

export function isEmptyDiff(diff: SetDiff<unknown>): boolean {
  return diff.put.length === 0 && diff.remove.length === 0
}
