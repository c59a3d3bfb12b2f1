/** HTTP for joining, with exact control over whom to trust. */
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'

/** Whom to believe: the system's authorities, only this one (PEM), or anyone (for what is checked by its digest). */
export type Trust = { readonly kind: 'system' } | { readonly kind: 'only'; readonly caPem: string } | { readonly kind: 'anyone' }

export interface HttpAnswer {
  readonly status: number
  readonly body: string
}

export interface JoinHttp {
  get(url: string, trust: Trust): Promise<HttpAnswer>
  postJson(url: string, body: unknown, trust: Trust): Promise<HttpAnswer>
}

const TIMEOUT_MS = 20_000
const MAX_BODY_BYTES = 1_048_576

/** Over the network. Rejects when there is no whole answer within 20 s, when it is larger than 1 MiB, or when trust fails. */
export function networkJoinHttp(): JoinHttp {
  return {
    get: (url, trust) => send('GET', url, null, trust),
    postJson: (url, body, trust) => send('POST', url, JSON.stringify(body), trust),
  }
}

function send(method: string, url: string, body: string | null, trust: Trust): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const target = new URL(url)
    const options = {
      method,
      agent: false as const,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: body === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
      ...(trust.kind === 'only' ? { ca: trust.caPem } : {}),
      ...(trust.kind === 'anyone' ? { rejectUnauthorized: false } : {}),
    }
    const request = (target.protocol === 'https:' ? httpsRequest : httpRequest)(target, options, (response) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > MAX_BODY_BYTES)
          request.destroy(new Error(`the answer of ${target.origin} is larger than ${MAX_BODY_BYTES} bytes`))
        else chunks.push(chunk)
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') }))
      response.on('error', reject)
    })
    request.on('error', reject)
    request.end(body ?? undefined)
  })
}
