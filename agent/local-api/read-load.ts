/** Reads a pushed load. Pure. Nothing but a number from 0 to 100 is one (fault row 13). */
import type { Fault } from '../../shared/errors.ts'
import { MAX_DEMAND } from '../../shared/model/observation.ts'
import type { PushedLoad } from './load-inbox.ts'

export type ReadLoad =
  | { readonly kind: 'load'; readonly load: PushedLoad }
  /** 400: no JSON; 422: JSON that is no load. */
  | { readonly kind: 'refused'; readonly status: 400 | 422; readonly detail: string; readonly errors: readonly Fault[] }

/** The load in a request body, or why it is none. */
export function readLoad(body: string): ReadLoad {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    // NaN and Infinity are no JSON either: they end here.
    return { kind: 'refused', status: 400, detail: 'The body is no JSON: send {"load": 73}.', errors: [] }
  }
  if (typeof value === 'number') value = { load: value }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return { kind: 'refused', status: 422, detail: 'Send an object: {"load": 73}.', errors: [] }
  const { load, demand = null, ...others } = value as { load?: unknown; demand?: unknown }
  const errors: Fault[] = []
  if (typeof load !== 'number' || !Number.isFinite(load)) errors.push({ path: '/load', message: 'must be a number' })
  else if (load < 0 || load > 100) errors.push({ path: '/load', message: 'must be from 0 to 100' })
  if (demand !== null && (typeof demand !== 'number' || !Number.isFinite(demand) || demand < 0 || demand > MAX_DEMAND))
    errors.push({ path: '/demand', message: `must be a number from 0 to ${MAX_DEMAND}` })
  for (const key of Object.keys(others))
    errors.push({ path: `/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, message: 'is not known' })
  if (errors.length > 0)
    return { kind: 'refused', status: 422, detail: errors.map(({ path, message }) => `${path} ${message}`).join('; '), errors }
  return { kind: 'load', load: { loadPercent: load as number, demand: demand as number | null } }
}
