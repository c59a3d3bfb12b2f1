/** The smallest tar writer that container engines read (ustar with long names split into prefix and name). Pure. */
import { InputError } from '../../../shared/errors.ts'

export interface TarEntry {
  /** Path without a leading slash. */
  readonly path: string
  readonly mode: number
  /** null for a directory. */
  readonly content: Uint8Array | null
  /** Target of a symbolic link; then there is no content. */
  readonly linkTo?: string
}

const BLOCK = 512

/** One archive of the entries, all owned by root. Throws InputError for a path longer than the format holds (255 bytes). */
export function tarOf(entries: readonly TarEntry[]): Buffer {
  const parts: Buffer[] = []
  for (const entry of entries) {
    const size = entry.content?.length ?? 0
    parts.push(headerOf(entry, size))
    if (entry.content) {
      parts.push(Buffer.from(entry.content.buffer, entry.content.byteOffset, size))
      parts.push(Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK))
    }
  }
  parts.push(Buffer.alloc(BLOCK * 2))
  return Buffer.concat(parts)
}

function headerOf(entry: TarEntry, size: number): Buffer {
  const header = Buffer.alloc(BLOCK)
  const { name, prefix } = splitPath(entry.path)
  header.write(name, 0)
  header.write(octal(entry.mode & 0o7777, 7), 100)
  header.write(octal(0, 7), 108)
  header.write(octal(0, 7), 116)
  header.write(octal(size, 11), 124)
  header.write(octal(0, 11), 136)
  header.write('        ', 148)
  header.write(entry.linkTo !== undefined ? '2' : entry.content === null ? '5' : '0', 156)
  if (entry.linkTo !== undefined) header.write(entry.linkTo, 157, 100)
  header.write('ustar\0', 257)
  header.write('00', 263)
  header.write(prefix, 345)
  let sum = 0
  for (const byte of header) sum += byte
  header.write(`${octal(sum, 6)}\0 `, 148)
  return header
}

function splitPath(path: string): { name: string; prefix: string } {
  if (Buffer.byteLength(path) <= 100) return { name: path, prefix: '' }
  for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
    const prefix = path.slice(0, slash)
    const name = path.slice(slash + 1)
    if (Buffer.byteLength(name) > 100) break
    if (Buffer.byteLength(prefix) <= 155) return { name, prefix }
  }
  throw new InputError(`the path ${path.slice(0, 80)}… is too long for a container file`)
}

function octal(value: number, width: number): string {
  return value.toString(8).padStart(width, '0')
}
