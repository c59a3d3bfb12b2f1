/** "Did you mean …?": the known word that a mistyped one is closest to. Pure. */

/**
 * The candidate within a third of the word's length in edits (at least 1, at most 3), nearest first, ties in order; else null.
 * How a word is joined (camelCase, kebab-case, snake_case) and its case count for nothing. Words of more than 64 characters are near to nothing.
 */
export function nearest(word: string, candidates: Iterable<string>): string | null {
  if (word.length > 64) return null
  const wanted = normalised(word)
  const limit = Math.min(3, Math.max(1, Math.floor(word.length / 3)))
  let best: string | null = null
  let bestDistance = limit + 1
  for (const candidate of candidates) {
    const known = normalised(candidate)
    if (Math.abs(known.length - wanted.length) >= bestDistance) continue
    const distance = editDistance(wanted, known)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one text into the other. */
export function editDistance(a: string, b: string): number {
  let beforePrevious: number[] = []
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      let least = Math.min(replace, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        least = Math.min(least, (beforePrevious[j - 2] ?? 0) + 1)
      row.push(least)
    }
    beforePrevious = previous
    previous = row
  }
  return previous[b.length] ?? 0
}

function normalised(word: string): string {
  return word
    .replaceAll(/([a-z])([A-Z])/g, '$1_$2')
    .toLowerCase()
    .replaceAll('-', '_')
}
