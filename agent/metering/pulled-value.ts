/** Reads a load out of what a service answers when asked. Pure. Unusable values are null: dropped, never guessed (fault row 13). */
import type { LoadPull } from '../../shared/model/unit.ts'

/** The load in percent (0–100), or null when the text holds none. */
export function pulledPercent(pull: LoadPull, text: string): number | null {
  if (pull.kind === 'json') {
    const value = atPointer(text, pull.pointer)
    return value !== null && value >= 0 && value <= 100 ? value : null
  }
  const value = prometheusValue(text, pull.metric)
  if (value === null || value < 0 || !(pull.full > 0)) return null
  const percent = (value / pull.full) * 100
  // A little over full is a busy service; far over it, the sample or the scale is wrong.
  return percent <= 1_000 ? Math.min(100, percent) : null
}

/** The finite number at a JSON Pointer (RFC 6901), or null. Numbers in strings count, since many status pages write them so. */
function atPointer(text: string, pointer: string): number | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  if (pointer !== '' && !pointer.startsWith('/')) return null
  for (const part of pointer === '' ? [] : pointer.slice(1).split('/')) {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~')
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return null
    value = (value as Record<string, unknown>)[key]
  }
  if (typeof value === 'string' && /^\s*-?\d+(?:\.\d+)?(?:e[+-]?\d+)?\s*$/i.test(value)) value = Number(value)
  return typeof value === 'number' && Number.isFinite(value) ? value : null
}

const SAMPLE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^}]*)\})?\s+(\S+)/

/** Sum of the samples of a metric (`name`, or `name{label="value"}` to choose), or null when there is no finite one. */
function prometheusValue(text: string, metric: string): number | null {
  const wanted = SAMPLE.exec(`${metric} 0`)
  if (wanted === null) return null
  const labels = (wanted[2] ?? '').split(',').filter((label) => label !== '')
  let sum: number | null = null
  for (const line of text.split('\n')) {
    if (!line.startsWith(wanted[1] as string)) continue
    const sample = SAMPLE.exec(line)
    if (sample === null || sample[1] !== wanted[1]) continue
    if (labels.some((label) => !(sample[2] ?? '').includes(label.trim()))) continue
    const value = Number(sample[3])
    if (!Number.isFinite(value)) return null
    sum = (sum ?? 0) + value
  }
  return sum
}
