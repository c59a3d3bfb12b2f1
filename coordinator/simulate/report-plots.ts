/** Line plots as SVG text. Colours and dashes come from the page's style sheet by the class of each line. Pure. */

export interface Line {
  readonly name: string
  /** Class: a, b or c. */
  readonly style: string
  /** One per time; null leaves a gap. */
  readonly values: readonly (number | null)[]
}

export interface Plot {
  readonly id: string
  readonly title: string
  /** What it shows, for those who cannot see it. */
  readonly text: string
  /** Epoch ms, ascending. */
  readonly times: readonly number[]
  readonly lines: readonly Line[]
}

const WIDTH = 1000
const HEIGHT = 190
const LEFT = 44
const BOTTOM = 22
const TOP = 8
const TICKS = 6

export function plot({ id, title, text, times, lines }: Plot): string {
  const first = times[0] ?? 0
  const span = Math.max(1, (times.at(-1) ?? first) - first)
  let highest = 0
  for (const { values } of lines) for (const value of values) highest = Math.max(highest, value ?? 0)
  const top = niceCeil(highest)
  const x = (atMs: number) => LEFT + ((WIDTH - LEFT) * (atMs - first)) / span
  const y = (value: number) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top)
  const grid = [0, 0.5, 1].map((share) => {
    const at = y(share * top).toFixed(1)
    return `<line class="grid" x1="${LEFT}" x2="${WIDTH}" y1="${at}" y2="${at}"/><text x="${LEFT - 6}" y="${at}" text-anchor="end" dominant-baseline="middle">${share * top}</text>`
  })
  const labels = Array.from({ length: TICKS }, (_, index) => {
    const atMs = first + (span * index) / (TICKS - 1)
    const anchor = index === 0 ? 'start' : index === TICKS - 1 ? 'end' : 'middle'
    return `<text x="${x(atMs).toFixed(1)}" y="${HEIGHT - 6}" text-anchor="${anchor}">${timeLabel(atMs, span)}</text>`
  })
  const paths = lines.map(({ style, values }) => `<path class="${style}" d="${pathOf(times, values, x, y)}"/>`)
  const keys = lines.map(({ name, style }) => `<span class="key ${style}">${name}</span>`)
  return `<figure><figcaption>${title} ${keys.join('')}</figcaption><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="${id}-t ${id}-d"><title id="${id}-t">${title}</title><desc id="${id}-d">${text}</desc>${grid.join('')}${labels.join('')}${paths.join('')}</svg></figure>`
}

/** Steps: a count holds until it changes. Runs of equal values are one line. */
function pathOf(
  times: readonly number[],
  values: readonly (number | null)[],
  x: (atMs: number) => number,
  y: (value: number) => number,
): string {
  const parts: string[] = []
  let before: number | null = null
  times.forEach((atMs, index) => {
    const value = values[index] ?? null
    if (value === null) before = null
    else if (before === null) {
      parts.push(`M${x(atMs).toFixed(1)} ${y(value).toFixed(1)}`)
      before = value
    } else if (value !== before || index === times.length - 1) {
      parts.push(`H${x(atMs).toFixed(1)}V${y(value).toFixed(1)}`)
      before = value
    }
  })
  return parts.join('')
}

/** 1, 2 or 5 times a power of ten, at least the value. */
function niceCeil(value: number): number {
  if (!(value > 0)) return 1
  const power = 10 ** Math.floor(Math.log10(value))
  for (const factor of [1, 2, 5, 10]) if (factor * power >= value - 1e-9) return factor * power
  return 10 * power
}

const DAY_MS = 86_400_000

function timeLabel(atMs: number, spanMs: number): string {
  const iso = new Date(atMs).toISOString()
  return spanMs > 3 * DAY_MS ? iso.slice(0, 10) : iso.slice(5, 16).replace('T', ' ')
}
