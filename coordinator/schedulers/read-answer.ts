/**
 * From what a scheduler sent to verdicts. It may be broken or hostile: an answer counts as a whole or not at all, and nothing of it
 * reaches people or the state unbounded. Pure.
 */
import type { NodeId } from '../../shared/model/identity.ts'
import type { Verdict } from '../placement/answers.ts'
import type { z } from 'zod'
import { API_VERSION, verdictSchema } from './protocol.ts'

export type ReadAnswer =
  | { readonly kind: 'ok'; readonly verdicts: ReadonlyMap<NodeId, Verdict> }
  /** `fault` is a clause: "its answer is no JSON". */
  | { readonly kind: 'bad'; readonly fault: string }

/** Reasons are shown in explanations and events. */
const MAX_REASON = 80
/** Different reasons of one answer that are told apart: one that names a temperature is different for every node. */
const MAX_REASONS = 20
/** Beyond it a verdict is no verdict: a thousand characters of reason, all of them escaped, and an id. */
const CHARS_PER_NODE = 8_192
const FREE_CHARS = 16_384
/** Of one verdict: more are not even named in what is wrong with it. */
const MAX_KEYS = 10
const OTHER_REASONS = 'other reasons'

/** Every one of `asked` has exactly one verdict in an answer that is ok. */
export function readAnswer(text: string, asked: readonly NodeId[]): ReadAnswer {
  const mostChars = FREE_CHARS + asked.length * CHARS_PER_NODE
  if (text.length > mostChars) return bad(`its answer is larger than ${asked.length} verdicts can be`)
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch {
    return bad('its answer is no JSON')
  }
  const answer: Readonly<Record<string, unknown>> =
    typeof raw === 'object' && raw !== null ? (raw as Readonly<Record<string, unknown>>) : {}
  if (answer.apiVersion !== API_VERSION) return bad(`its answer is not of apiVersion ${API_VERSION}`)
  const { nodes } = answer
  const other = Object.keys(answer).find((key) => key !== 'apiVersion' && key !== 'nodes')
  if (other !== undefined) return bad(`its answer is wrong at the top: there is no ${oneLine(other)}`)
  if (!Array.isArray(nodes)) return bad('its answer is wrong at nodes: it is no list')
  const wanted = new Set(asked)
  const verdicts = new Map<NodeId, Verdict>()
  const reasons = new Set<string>()
  // One by one, until the first fault: who sends a megabyte of faults is not read to the end.
  for (const [index, given] of nodes.entries()) {
    const parsed = readVerdict(given)
    if (parsed.kind === 'bad')
      return bad(`its answer is wrong at ${['nodes', index, ...parsed.path].join('.')}: ${parsed.message}`)
    const { verdict } = parsed
    const { id } = verdict
    if (!wanted.has(id)) return bad(`its answer names ${oneLine(id)}, which is no node of the question`)
    if (verdicts.has(id)) return bad(`its answer names ${id} twice`)
    if ('score' in verdict) {
      verdicts.set(id, { kind: 'accept', score: verdict.score, atMost: verdict.max ?? null })
      continue
    }
    const reason = oneLine(verdict.reject) || 'no reason given'
    const isKnown = reasons.has(reason) || reasons.size < MAX_REASONS
    if (isKnown) reasons.add(reason)
    verdicts.set(id, { kind: 'reject', reason: isKnown ? reason : OTHER_REASONS })
  }
  if (verdicts.size < wanted.size) {
    const missing = asked.find((id) => !verdicts.has(id))
    return bad(`its answer has no verdict on ${wanted.size - verdicts.size} of ${wanted.size} nodes, ${missing} among them`)
  }
  return { kind: 'ok', verdicts }
}

function readVerdict(
  given: unknown,
):
  | { readonly kind: 'ok'; readonly verdict: z.infer<typeof verdictSchema> }
  | { readonly kind: 'bad'; readonly path: readonly string[]; readonly message: string } {
  if (typeof given === 'object' && given !== null && Object.keys(given).length > MAX_KEYS)
    return { kind: 'bad', path: [], message: `it has more than ${MAX_KEYS} keys` }
  const parsed = verdictSchema.safeParse(given)
  if (parsed.success) return { kind: 'ok', verdict: parsed.data }
  const { path, message } = innermost(parsed.error.issues[0])
  return { kind: 'bad', path: path.map(String), message: oneLine(message) }
}

/** What is wrong with a verdict is told by the form that it comes closest to. */
function innermost(issue: z.core.$ZodIssue | undefined): { readonly path: readonly PropertyKey[]; readonly message: string } {
  if (issue === undefined) return { path: [], message: 'not as described' }
  if (issue.code !== 'invalid_union') return issue
  const [closest] = [...issue.errors].sort((a, b) => a.length - b.length)
  const inner = innermost(closest?.[0])
  return { path: [...issue.path, ...inner.path], message: inner.message }
}

function bad(fault: string): ReadAnswer {
  return { kind: 'bad', fault }
}

/** Control characters and line ends have no place in a log line, a terminal or a label. */
export function oneLine(text: string, maxLength = MAX_REASON): string {
  const flat = text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\s]+/gu, ' ').trim()
  return flat.length <= maxLength ? flat : `${flat.slice(0, maxLength - 1).toWellFormed()}…`
}
