/** Cuts a change of a set into parts that each fit one frame. Pure. */
import { MAX_FRAME_BYTES } from './frames.ts'

/** Room left for a frame's own fields and for characters that take more bytes than their count says. */
export const PART_BYTES = Math.floor(MAX_FRAME_BYTES * 0.75)

/** One element of a change, already as JSON text; `field` is the frame's array that it belongs to. */
export interface ChangeItem {
  readonly field: string
  readonly json: string
}

/**
 * Groups of array fields (`"put":[…],"remove":[…]`) in JSON, each at most `partBytes` unless a single item is larger. Every
 * name in `fields` is present in every part. At least one part.
 */
export function splitSet(fields: readonly string[], items: readonly ChangeItem[], partBytes = PART_BYTES): readonly string[] {
  const parts: string[] = []
  let part = new Map<string, string[]>()
  let bytes = 0
  const close = () => {
    parts.push(fields.map((field) => `${JSON.stringify(field)}:[${(part.get(field) ?? []).join(',')}]`).join(','))
    part = new Map()
    bytes = 0
  }
  for (const item of items) {
    const itemBytes = Buffer.byteLength(item.json) + 1
    if (bytes > 0 && bytes + itemBytes > partBytes) close()
    const list = part.get(item.field)
    if (list) list.push(item.json)
    else part.set(item.field, [item.json])
    bytes += itemBytes
  }
  if (bytes > 0 || parts.length === 0) close()
  return parts
}
