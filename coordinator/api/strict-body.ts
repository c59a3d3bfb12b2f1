/** Reads a request's body within bounds: at most 1 MiB, JSON only, valid UTF-8, no duplicate keys (reliability §3 "API"). */
import { InputError } from '../../shared/errors.ts'
import { HttpProblem } from './problem.ts'
import { parseStrictJson } from './strict-json.ts'

const MAX_BODY_BYTES = 1024 * 1024

export interface ReadBody {
  /** The text as it came; '' when there was none. */
  readonly text: string
  /** undefined when there was no body. */
  readonly value: unknown
}

/** The parsed body. Throws `HttpProblem` (400, 413, 415) or `InputError` (422). */
export async function readStrictBody(request: Request): Promise<ReadBody> {
  const declared = Number(request.headers.get('content-length') ?? '0')
  if (declared > MAX_BODY_BYTES) throw tooLarge()
  const bytes = await readBounded(request)
  if (bytes.byteLength === 0) return { text: '', value: undefined }
  const mediaType = (request.headers.get('content-type') ?? '').split(';', 1)[0]?.trim().toLowerCase() ?? ''
  if (mediaType !== 'application/json') {
    throw new HttpProblem(
      'media-type-unsupported',
      `Send application/json, not ${mediaType === '' ? 'an unnamed type' : mediaType}.`,
      {
        headers: { accept: 'application/json' },
      },
    )
  }
  const text = decode(bytes)
  const parsed = parseStrictJson(text)
  if (parsed.kind === 'malformed') throw new HttpProblem('json-invalid', `The body cannot be read: ${parsed.detail}.`)
  if (parsed.kind === 'refused') throw new InputError('The body cannot be used.', parsed.faults)
  return { text, value: parsed.value }
}

async function readBounded(request: Request): Promise<Uint8Array> {
  if (request.body === null) return new Uint8Array(0)
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of request.body) {
    size += chunk.byteLength
    if (size > MAX_BODY_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch (error) {
    if (error instanceof TypeError) throw new HttpProblem('json-invalid', 'The body is not valid UTF-8.')
    throw error
  }
}

function tooLarge(): HttpProblem {
  return new HttpProblem('too-large', `A body may hold at most ${MAX_BODY_BYTES} bytes.`, { headers: { connection: 'close' } })
}
