/** Splits a command line into words as Compose does: quotes and backslashes, no expansion. Pure. */

/** The words, or null when a quote is not closed. */
export function splitWords(line: string): string[] | null {
  const words: string[] = []
  let word: string | null = null
  let quote: '"' | "'" | null = null
  for (let at = 0; at < line.length; at++) {
    const character = line[at] ?? ''
    if (quote === "'") {
      if (character === "'") quote = null
      else word = (word ?? '') + character
    } else if (quote === '"') {
      if (character === '"') quote = null
      else if (character === '\\' && '"\\$`\n'.includes(line[at + 1] ?? ' ')) {
        at += 1
        if (line[at] !== '\n') word = (word ?? '') + (line[at] ?? '')
      } else word = (word ?? '') + character
    } else if (character === '"' || character === "'") {
      quote = character
      word ??= ''
    } else if (character === '\\' && at + 1 < line.length) {
      at += 1
      if (line[at] !== '\n') word = (word ?? '') + (line[at] ?? '')
    } else if (/\s/.test(character)) {
      if (word !== null) words.push(word)
      word = null
    } else word = (word ?? '') + character
  }
  if (quote !== null) return null
  if (word !== null) words.push(word)
  return words
}
