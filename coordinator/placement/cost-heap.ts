/** A binary heap of small integers by cost, ties by `tie`. Items, costs and ties are the caller's arrays. Pure. */

export interface CostHeap {
  readonly size: number
  /** The cheapest item; -1 when empty. */
  top(): number
  /** Restores order after the top's cost changed. */
  topChanged(): void
  push(item: number): void
  dropTop(): void
}

/** Takes over `items`; `cost[item]` and `tie[item]` are read whenever order is restored. O(items). */
export function costHeap(items: number[], cost: readonly number[], tie: readonly number[]): CostHeap {
  const before = (a: number, b: number) => {
    const difference = (cost[a] ?? 0) - (cost[b] ?? 0)
    return difference < 0 || (difference === 0 && (tie[a] ?? 0) < (tie[b] ?? 0))
  }
  const sink = (start: number) => {
    const item = items[start] ?? 0
    let index = start
    for (;;) {
      let child = 2 * index + 1
      if (child >= items.length) break
      if (child + 1 < items.length && before(items[child + 1] ?? 0, items[child] ?? 0)) child += 1
      const candidate = items[child] ?? 0
      if (!before(candidate, item)) break
      items[index] = candidate
      index = child
    }
    items[index] = item
  }
  for (let index = (items.length >> 1) - 1; index >= 0; index -= 1) sink(index)
  return {
    get size() {
      return items.length
    },
    top: () => items[0] ?? -1,
    topChanged: () => sink(0),
    push(item) {
      let index = items.length
      items.push(item)
      while (index > 0) {
        const parent = (index - 1) >> 1
        const above = items[parent] ?? 0
        if (!before(item, above)) break
        items[index] = above
        index = parent
      }
      items[index] = item
    },
    dropTop() {
      const last = items.pop()
      if (last === undefined || items.length === 0) return
      items[0] = last
      sink(0)
    },
  }
}
