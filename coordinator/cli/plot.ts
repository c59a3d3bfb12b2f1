/** Curves in a terminal, of block characters. Pure. */

const EIGHTHS = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'] as const

/** One value per column: the mean of the points that fall into it; null where there are none. */
export function columnsOf(
  points: readonly { readonly atMs: number; readonly value: number }[],
  span: { readonly fromMs: number; readonly toMs: number },
  width: number,
): readonly (number | null)[] {
  const sums = Array.from({ length: width }, () => ({ sum: 0, count: 0 }))
  for (const { atMs, value } of points) {
    const cell = sums[Math.floor(((atMs - span.fromMs) / (span.toMs - span.fromMs)) * width)]
    if (cell === undefined) continue
    cell.sum += value
    cell.count += 1
  }
  return sums.map(({ sum, count }) => (count === 0 ? null : sum / count))
}

/** Fills columns between two points whose step is wider than a column; a gap in what was measured stays one. */
export function fillSteps(
  columns: readonly (number | null)[],
  span: { readonly fromMs: number; readonly toMs: number },
  stepMs: number,
): readonly (number | null)[] {
  const reach = Math.ceil((stepMs / (span.toMs - span.fromMs)) * columns.length)
  let last: { at: number; value: number } | null = null
  return columns.map((value, at) => {
    if (value !== null) last = { at, value }
    return value ?? (last !== null && at - last.at < reach ? last.value : null)
  })
}

/** A line of one character per column; `null` is a blank. Scaled from zero (or the least, if negative) to the largest. */
export function sparkline(columns: readonly (number | null)[]): string {
  const { least, most } = rangeOf(columns)
  return columns
    .map((value) => {
      if (value === null) return ' '
      const share = most > least ? (value - least) / (most - least) : 0
      return EIGHTHS[Math.min(7, Math.floor(share * 8))] ?? ' '
    })
    .join('')
}

/** `height` lines, highest first; blocks grow from the bottom in eighths of a line. */
export function chart(columns: readonly (number | null)[], height: number): readonly string[] {
  const { least, most } = rangeOf(columns)
  return Array.from({ length: height }, (_, row) => {
    const floor = height - 1 - row
    return columns
      .map((value) => {
        if (value === null) return ' '
        const eighths = Math.round((most > least ? (value - least) / (most - least) : 0) * height * 8) - floor * 8
        if (eighths >= 8) return '█'
        // What is measured but zero still shows that it was measured.
        if (eighths <= 0) return floor === 0 ? '▁' : ' '
        return EIGHTHS[eighths - 1] ?? ' '
      })
      .join('')
      .trimEnd()
  })
}

/** What the lowest and the highest level of a curve stand for. */
export function rangeOf(columns: readonly (number | null)[]): { readonly least: number; readonly most: number } {
  let least = 0
  let most = 0
  for (const value of columns) {
    least = Math.min(least, value ?? 0)
    most = Math.max(most, value ?? 0)
  }
  return { least, most }
}
