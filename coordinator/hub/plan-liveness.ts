/**
 * Decides what to believe of silent nodes (design §5). Pure; all times are monotonic ms.
 *
 *   unknown --seen--> live --15 s silent--> suspect --45 s silent--> lost --seen--> live
 *
 * When so many go silent at once that the fault is more likely ours than theirs, suspects are held back from being lost. The
 * same hold is on right after a start, when nobody has had the time to report.
 */
import type { NodeId } from '../../shared/model/identity.ts'
import type { Liveness } from '../../shared/model/node.ts'
import { earliest, type Plan, type Reason } from '../../shared/plan.ts'

export interface LivenessRules {
  /** Silence after which nothing new is placed on a node. */
  readonly suspectAfterMs: number
  /** Silence after which its instances are replaced. */
  readonly lostAfterMs: number
  /** How long a node may stay unknown after the start (or after it joined) before its silence counts. */
  readonly unknownForMs: number
  /** So many silent nodes within this time look like a fault of ours. */
  readonly massWindowMs: number
  readonly massAtLeast: number
  /** The longest hold. */
  readonly freezeForMs: number
}

export const LIVENESS_RULES: LivenessRules = {
  suspectAfterMs: 15_000,
  lostAfterMs: 45_000,
  unknownForMs: 300_000,
  massWindowMs: 60_000,
  massAtLeast: 3,
  freezeForMs: 600_000,
}

export interface NodeSilence {
  readonly nodeId: NodeId
  readonly liveness: Liveness
  /** null: nothing heard since this coordinator started. */
  readonly lastSeenMs: number | null
  /** When this coordinator first knew of the node. */
  readonly knownSinceMs: number
}

export interface Freeze {
  readonly cause: 'start' | 'silence'
  readonly reason: string
  readonly sinceMs: number
  readonly untilMs: number
}

export interface LivenessState {
  readonly nodes: readonly NodeSilence[]
  readonly freeze: Freeze | null
}

export type LivenessAction =
  | {
      readonly kind: 'set'
      readonly nodeId: NodeId
      readonly from: Liveness
      readonly to: Liveness
      readonly silentMs: number | null
    }
  | { readonly kind: 'freeze'; readonly freeze: Freeze }
  | { readonly kind: 'thaw'; readonly reason: string }

export function planLiveness(state: LivenessState, nowMs: number, rules: LivenessRules = LIVENESS_RULES): Plan<LivenessAction> {
  const actions: LivenessAction[] = []
  const reasons: Reason[] = []
  const freeze = planFreeze(state, nowMs, rules, actions)
  let wakeAtMs: number | null = freeze === null ? null : freeze.untilMs
  for (const node of state.nodes) {
    const { to, wakeMs } = judge(node, freeze !== null, nowMs, rules)
    wakeAtMs = earliest(wakeAtMs, wakeMs)
    const silentMs = node.lastSeenMs === null ? null : nowMs - node.lastSeenMs
    if (to !== node.liveness) actions.push({ kind: 'set', nodeId: node.nodeId, from: node.liveness, to, silentMs })
    else if (freeze !== null && to === 'suspect')
      reasons.push({ subject: node.nodeId, code: 'held', text: `not counted as lost: ${freeze.reason}` })
  }
  return { actions, reasons, wakeAtMs }
}

function planFreeze(state: LivenessState, nowMs: number, rules: LivenessRules, actions: LivenessAction[]): Freeze | null {
  const silentFor = (node: NodeSilence) => (node.lastSeenMs === null ? null : nowMs - node.lastSeenMs)
  const reporting = state.nodes.filter((node) => (silentFor(node) ?? Number.POSITIVE_INFINITY) < rules.suspectAfterMs).length
  const justSilent = (node: NodeSilence) => {
    const silentMs = silentFor(node)
    return silentMs !== null && silentMs >= rules.suspectAfterMs && silentMs < rules.suspectAfterMs + rules.massWindowMs
  }
  const { freeze } = state
  if (freeze !== null) {
    const counted = state.nodes.filter((node) => node.liveness !== 'lost' || justSilent(node)).length
    const silent = counted - reporting
    const stillMass = silent >= rules.massAtLeast && silent * 3 > counted
    // Two thirds report. A start's hold is over also when those missing are too few to point at us, once their time has passed.
    if (reporting * 3 >= counted * 2) {
      actions.push({ kind: 'thaw', reason: `${reporting} of ${counted} nodes report` })
      return null
    }
    if (nowMs < freeze.untilMs) return freeze
    if (freeze.cause === 'start' && stillMass && nowMs < freeze.sinceMs + rules.freezeForMs) {
      const reason = `${silent} of ${counted} nodes have not reported since the start`
      const longer: Freeze = { ...freeze, reason, untilMs: freeze.sinceMs + rules.freezeForMs }
      actions.push({ kind: 'freeze', freeze: longer })
      return longer
    }
    actions.push({ kind: 'thaw', reason: 'the longest hold is over' })
    return null
  }
  const fresh = state.nodes.filter(justSilent).length
  const counted = state.nodes.filter((node) => node.liveness !== 'lost' || justSilent(node)).length
  if (fresh < rules.massAtLeast || fresh * 3 <= counted) return null
  const next: Freeze = {
    cause: 'silence',
    reason: `${fresh} of ${counted} nodes went silent within a minute: the fault may be the coordinator's`,
    sinceMs: nowMs,
    untilMs: nowMs + rules.freezeForMs,
  }
  actions.push({ kind: 'freeze', freeze: next })
  return next
}

function judge(
  node: NodeSilence,
  frozen: boolean,
  nowMs: number,
  rules: LivenessRules,
): { readonly to: Liveness; readonly wakeMs: number | null } {
  if (node.lastSeenMs === null) {
    if (node.liveness === 'lost') return { to: 'lost', wakeMs: null }
    const endsMs = node.knownSinceMs + rules.unknownForMs
    if (nowMs < endsMs) return { to: 'unknown', wakeMs: endsMs }
    return { to: frozen ? 'unknown' : 'lost', wakeMs: null }
  }
  const silentMs = nowMs - node.lastSeenMs
  if (silentMs < rules.suspectAfterMs) return { to: 'live', wakeMs: node.lastSeenMs + rules.suspectAfterMs }
  if (node.liveness === 'lost') return { to: 'lost', wakeMs: null }
  if (silentMs < rules.lostAfterMs) return { to: 'suspect', wakeMs: node.lastSeenMs + rules.lostAfterMs }
  return { to: frozen ? 'suspect' : 'lost', wakeMs: null }
}
