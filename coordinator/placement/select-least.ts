/**
 * Puts the least items, by value and then by item, before `middle` within `from` to `to` (Hoare's selection, pivot in the middle); `values`
 * go along with their items. Pure but for the two arrays.
 */
export function selectLeast(items: Int32Array, values: Float64Array, from: number, to: number, middle: number): void {
  let low = from
  let high = to - 1
  while (low < high) {
    const pivot = (low + high) >> 1
    const value = values[pivot] ?? 0
    const index = items[pivot] ?? 0
    let i = low
    let j = high
    while (i <= j) {
      while ((values[i] ?? 0) < value || (values[i] === value && (items[i] ?? 0) < index)) i += 1
      while ((values[j] ?? 0) > value || (values[j] === value && (items[j] ?? 0) > index)) j -= 1
      if (i > j) break
      const otherValue = values[i] ?? 0
      const otherIndex = items[i] ?? 0
      values[i] = values[j] ?? 0
      items[i] = items[j] ?? 0
      values[j] = otherValue
      items[j] = otherIndex
      i += 1
      j -= 1
    }
    if (middle <= j) high = j
    else if (middle >= i) low = i
    else return
  }
}
