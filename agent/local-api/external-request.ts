/**
 * The request that another proxy asks about (`POST /v1/authorize`), out of its headers. Pure. nginx `auth_request` is told to
 * send `X-Original-Method` and `X-Original-URI`; Traefik's and Caddy's forward auth send `X-Forwarded-Method` and `-Uri`.
 */
import { pathFault } from '../gateway/builtin/http-head.ts'

export interface ExternalRequest {
  readonly method: string
  readonly path: string
  readonly authorization: string | null
  readonly apiKey: string | null
}

export type ReadExternal = ExternalRequest | { readonly fault: string }

/** `rawHeaders`: names and values in turn, so that doubled headers are seen. */
export function readExternalRequest(rawHeaders: readonly string[]): ReadExternal {
  const values = new Map<string, string>()
  const single = ['authorization', 'x-api-key', 'x-original-method', 'x-original-uri', 'x-forwarded-method', 'x-forwarded-uri']
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = (rawHeaders[index] as string).toLowerCase()
    if (!single.includes(name)) continue
    if (values.has(name)) return { fault: `${name} is given twice` }
    values.set(name, rawHeaders[index + 1] as string)
  }
  const method = values.get('x-original-method') ?? values.get('x-forwarded-method') ?? 'GET'
  const target = values.get('x-original-uri') ?? values.get('x-forwarded-uri') ?? '/'
  if (!/^[A-Z][A-Z-]{0,31}$/.test(method)) return { fault: 'the method is none' }
  const query = target.indexOf('?')
  const path = query < 0 ? target : target.slice(0, query)
  const fault = pathFault(path, target)
  if (fault !== null) return { fault }
  return { method, path, authorization: values.get('authorization') ?? null, apiKey: values.get('x-api-key') ?? null }
}
