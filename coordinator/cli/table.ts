/** Tables that fit the terminal. Pure. */

export interface Column<T> {
  readonly title: string
  readonly value: (row: T) => string
  readonly align?: 'left' | 'right'
  /** May be cut with an ellipsis when the line is too long, down to this width. Absent: never cut. */
  readonly shrinkTo?: number
  /** Left out, the lowest number first, where the table would not fit even with all its columns cut. Absent: never. */
  readonly dropOrder?: number
  /** Left out where no row has anything to say in it ("-", or nothing). */
  readonly optional?: boolean
  /** Styles a cell that is already padded. */
  readonly style?: (row: T) => Style
}

export type Style = 'plain' | 'good' | 'warn' | 'bad' | 'faint'
export type Paint = (style: Style, text: string) => string

const GAP = '  '
const SILENT: ReadonlySet<string> = new Set(['', '-'])

/**
 * The lines of a table. Columns that may be dropped go first, empty ones before the others; those that may shrink share what does not fit, the widest first; a line that is still too long is cut.
 * Control characters in values (which strangers may have chosen) never reach the terminal.
 */
export function renderTable<T>(
  rows: readonly T[],
  allColumns: readonly Column<T>[],
  options: { readonly width: number | null; readonly paint: Paint },
): readonly string[] {
  const telling = allColumns.filter(({ optional, value }) => optional !== true || rows.some((row) => !SILENT.has(value(row))))
  const columns = options.width === null ? telling : columnsThatFit(rows, telling, options.width)
  const cells = rows.map((row) => columns.map((column) => printable(column.value(row))))
  const widths = columns.map((column, index) =>
    Math.max(column.title.length, ...cells.map((line) => lengthOf(line[index] ?? ''))),
  )
  if (options.width !== null) shrink(widths, columns, options.width)
  const last = columns.length - 1
  const lineOf = (texts: readonly string[], paint: (index: number, text: string) => string) => {
    let room = options.width ?? Number.POSITIVE_INFINITY
    const parts: string[] = []
    texts.forEach((text, index) => {
      const gap = index === 0 ? '' : GAP
      const width = Math.min(widths[index] ?? 0, room - gap.length)
      if (width <= 0) return
      room -= gap.length + width
      const cut = ellipsis(text, width)
      const padding = ' '.repeat(width - lengthOf(cut))
      const right = columns[index]?.align === 'right'
      parts.push(gap + paint(index, right ? padding + cut : index === last ? cut : cut + padding))
    })
    return parts.join('').trimEnd()
  }
  const header = lineOf(
    columns.map(({ title }) => title),
    (_index, text) => options.paint('faint', text),
  )
  return [
    header,
    ...cells.map((line, rowIndex) =>
      lineOf(line, (index, text) => {
        const row = rows[rowIndex]
        const style = row === undefined ? undefined : columns[index]?.style?.(row)
        return style === undefined || style === 'plain' ? text : options.paint(style, text)
      }),
    ),
  ]
}

function columnsThatFit<T>(rows: readonly T[], columns: readonly Column<T>[], width: number): readonly Column<T>[] {
  const least = new Map(
    columns.map((column) => {
      const full = rows.reduce((most, row) => Math.max(most, lengthOf(printable(column.value(row)))), column.title.length)
      return [column, Math.min(full, column.shrinkTo ?? full)] as const
    }),
  )
  const tooWide = (kept: readonly Column<T>[]) =>
    kept.reduce((sum, column) => sum + (least.get(column) ?? 0), GAP.length * (kept.length - 1)) > width
  let kept = columns
  const optional = columns
    .filter(({ dropOrder }) => dropOrder !== undefined)
    .sort((a, b) => (a.dropOrder ?? 0) - (b.dropOrder ?? 0))
  for (const column of optional) if (tooWide(kept)) kept = kept.filter((other) => other !== column)
  return kept
}

function shrink<T>(widths: number[], columns: readonly Column<T>[], width: number): void {
  let excess = widths.reduce((sum, value) => sum + value, 0) + GAP.length * (widths.length - 1) - width
  while (excess > 0) {
    let widest = -1
    columns.forEach(({ shrinkTo }, index) => {
      if (shrinkTo === undefined || (widths[index] ?? 0) <= shrinkTo) return
      if (widest < 0 || (widths[index] ?? 0) > (widths[widest] ?? 0)) widest = index
    })
    if (widest < 0) return
    widths[widest] = (widths[widest] ?? 0) - 1
    excess -= 1
  }
}

/** `text` in at most `width` characters. */
export function ellipsis(text: string, width: number): string {
  const characters = [...text]
  if (characters.length <= width) return text
  return width <= 1 ? '…'.slice(0, width) : `${characters.slice(0, width - 1).join('')}…`
}

/** `text` in lines of at most `width` characters, broken between words where that can be. */
export function wrap(text: string, width: number): readonly string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/(?<= )(?=[^ ])/)) {
    if (lengthOf(line) + lengthOf(word.trimEnd()) > width && line !== '') {
      lines.push(line.trimEnd())
      line = ''
    }
    line += word
    for (; lengthOf(line.trimEnd()) > width; line = [...line].slice(width).join(''))
      lines.push([...line].slice(0, width).join(''))
  }
  return line.trimEnd() === '' ? lines : [...lines, line.trimEnd()]
}

/** Without control characters, line breaks and direction overrides. */
export function printable(text: string): string {
  return text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069]+/g, ' ').trimEnd()
}

function lengthOf(text: string): number {
  return [...text].length
}

const CODES: Readonly<Record<Exclude<Style, 'plain'>, string>> = { good: '32', warn: '33', bad: '31', faint: '2' }

/** Colours by ANSI codes, or none at all. */
export function paintWith(enabled: boolean): Paint {
  return (style, text) => (enabled && style !== 'plain' ? `\u001b[${CODES[style]}m${text}\u001b[0m` : text)
}
