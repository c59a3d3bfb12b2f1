/**
 * Between the placement loop and custom schedulers. A pass hands in what waits and gets back what it can plan now: all that name no
 * scheduler, and those groups whose scheduler has answered (or cannot, so that the built-in one chooses). The others are asked about
 * meanwhile, and the next pass plans them: nothing ever waits for a scheduler but the instances that name it.
 *
 * One question is under way per group, and an answer is used once. A group that found no place is asked about again when nodes changed,
 * and now and then, since a scheduler may change its mind for reasons that nobody here sees.
 */
import type { Clock } from '../../shared/clock.ts'
import type { NodeId, ServiceId } from '../../shared/model/identity.ts'
import { earliest } from '../../shared/plan.ts'
import { type Answers, type GroupAnswer, NO_ANSWERS, type Verdict } from '../placement/answers.ts'
import { type Board, openBoard } from '../placement/board.ts'
import type { PlacementNode, PlacementOptions, PlacementRequest } from '../placement/model.ts'
import { candidatesFor } from './plan-questions.ts'
import { learnPools, NO_POOL_VERDICTS, type PoolVerdicts } from './pool-verdicts.ts'
import type { Consultation, SchedulerBook } from './scheduler-book.ts'

/** What a pass of placement works with. */
export interface Turn {
  /** To be planned now. */
  readonly requests: readonly PlacementRequest[]
  readonly answers: Answers
  /** Groups of `requests` for which the built-in scheduler chooses in a custom one's place → why. */
  readonly builtIn: ReadonlyMap<string, string>
  /** Groups that found no place last time and are not planned now: that stands. */
  readonly resting: ReadonlySet<string>
  /** Whether `requests` holds groups that were decided since the last pass. */
  readonly hasNews: boolean
  /** When a resting group is to be asked about again; epoch ms. */
  readonly wakeAtMs: number | null
}

export interface SchedulerDesk {
  /** `structure` is that of the nodes (node-view.ts). */
  open(pending: readonly PlacementRequest[], nodes: readonly PlacementNode[], structure: number): Turn
  /** After the turn was planned: the groups of which members found no place. */
  settle(turn: Turn, refused: ReadonlySet<string>, structure: number): void
  /** What the scheduler last said for a group that found no place; null when the built-in one decided, or none was asked. */
  answer(group: string): GroupAnswer | null
  /** Why the built-in scheduler decided for a group that found no place; null when it did not, or names none. */
  builtInBecause(group: string): string | null
  /** The scheduler that is being asked about the group for the first time; null when none is. */
  asking(group: string): string | null
  /** What it thinks of the pools that machines for the group could come from; null when the built-in one decides for it. */
  poolVerdicts(request: PlacementRequest): PoolVerdicts | null
  /** Asks on behalf of a dry run. */
  preview(group: readonly PlacementRequest[], nodes: readonly PlacementNode[], labels: Labels): Promise<Consultation>
}

type Labels = Readonly<Record<string, string>>

export interface DeskDeps {
  readonly book: SchedulerBook
  readonly clock: Clock
  readonly options: PlacementOptions
  /** Labels of the service, handed to the scheduler. */
  labelsOf(service: ServiceId): Labels
  /** Of the node, in the coordinator's steady time. */
  joinedAtMsOf(node: NodeId): number
  /** That time: the wall clock may jump while a group waits (fault row 37). */
  steadyNowMs(): number
  /** Called when a group can be planned that could not before. */
  onDecided(): void
}

type Decision = { readonly kind: 'answered'; readonly answer: GroupAnswer } | { readonly kind: 'undecided'; readonly why: string }

interface Group {
  readonly scheduler: string
  /** When it began to wait; steady ms, as the joining of nodes. */
  readonly sinceMs: number
  phase: { readonly kind: 'idle' } | { readonly kind: 'asking' } | { readonly kind: 'decided'; readonly decision: Decision }
  /** How it found no place last; null before. */
  refused: {
    readonly decision: Decision
    readonly structure: number
    readonly atMs: number
    readonly members: ReadonlySet<string>
  } | null
}

/** A group that found no place is asked about again after this, monotonic ms … */
const ASK_AGAIN_MS = 10_000
/** … or when nodes changed, but not sooner than this: in a busy cluster they change all the time. */
const ASK_CHANGED_MS = 1_000
/** A scheduler with as many questions as it may have is looked at again after this, whoever asked them. */
const BUSY_LOOK_MS = 1_000
/** Groups looked at in one pass, each at the price of a look at every node: the services of others are placed in the same pass. */
const MAX_LOOKED_PER_PASS = 20
/** Groups whose pools are remembered beyond their waiting. */
const MAX_REMEMBERED = 10_000

export function createSchedulerDesk(deps: DeskDeps): SchedulerDesk {
  const { book, clock } = deps
  const groups = new Map<string, Group>()
  const pools = new Map<string, PoolVerdicts>()

  const open = (pending: readonly PlacementRequest[], nodes: readonly PlacementNode[], structure: number): Turn => {
    const custom = byGroup(pending)
    for (const key of groups.keys()) if (!custom.has(key)) groups.delete(key)
    if (custom.size === 0)
      return { requests: pending, answers: NO_ANSWERS, builtIn: new Map(), resting: new Set(), hasNews: false, wakeAtMs: null }
    const answers = new Map<string, GroupAnswer>()
    const builtIn = new Map<string, string>()
    const resting = new Set<string>()
    let wakeAtMs: number | null = null
    let board: Board | null = null
    const boardOf = () => {
      board ??= openBoard(
        nodes,
        [...custom.values()].map(([first]) => first as PlacementRequest),
        deps.options,
      )
      return board
    }
    let looked = 0
    for (const [key, members] of custom) {
      const [first] = members as [PlacementRequest]
      const scheduler = first.rules.scheduler as string
      const group = groups.get(key) ?? { scheduler, sinceMs: deps.steadyNowMs(), phase: { kind: 'idle' }, refused: null }
      groups.set(key, group)
      if (group.phase.kind === 'idle' && book.isBusy(scheduler)) wakeAtMs = earliest(wakeAtMs, clock.now() + BUSY_LOOK_MS)
      else if (group.phase.kind === 'idle') {
        const waitMs = waitBeforeAsking(group, members, structure, clock.monotonicMs())
        if (waitMs > 0 || looked >= MAX_LOOKED_PER_PASS) wakeAtMs = earliest(wakeAtMs, clock.now() + Math.ceil(waitMs))
        else {
          looked += 1
          group.phase = begin(key, group, members, nodes, boardOf)
        }
      }
      if (group.phase.kind === 'decided') {
        const { decision } = group.phase
        if (decision.kind === 'answered') answers.set(key, decision.answer)
        else builtIn.set(key, decision.why)
      } else if (group.refused !== null) resting.add(key)
    }
    const isPlanned = ({ group, rules }: PlacementRequest) =>
      rules.scheduler === undefined || answers.has(group) || builtIn.has(group)
    const hasNews = answers.size + builtIn.size > 0
    return { requests: pending.filter(isPlanned), answers, builtIn, resting, hasNews, wakeAtMs }
  }

  /** Decides at once what needs no question, or begins to ask. */
  const begin = (
    key: string,
    group: Group,
    members: readonly PlacementRequest[],
    nodes: readonly PlacementNode[],
    boardOf: () => Board,
  ): Group['phase'] => {
    const [request] = members as readonly [PlacementRequest]
    const { scheduler } = group
    const why = book.decline(scheduler, request.service)
    if (why !== null) return decided({ kind: 'undecided', why })
    const candidates = candidatesFor(request, boardOf(), deps.options)
    // Nobody is asked about nothing; the plan counts the filters that left no node.
    if (candidates.length === 0) return decided({ kind: 'answered', answer: answerWith(group, new Map(), nodes) })
    const context = { scheduler, count: members.length, labels: deps.labelsOf(request.service), dryRun: false }
    book.consult(request, candidates, context).then(
      (consultation) => note(key, group, request, candidates, nodes, consultation),
      // The book is closed: the coordinator stops.
      () => undefined,
    )
    return { kind: 'asking' }
  }

  const note = (
    key: string,
    group: Group,
    request: PlacementRequest,
    candidates: readonly PlacementNode[],
    nodes: readonly PlacementNode[],
    consultation: Consultation,
  ) => {
    if (consultation.kind === 'answered' && request.home === null)
      remember(
        key,
        learnPools(pools.get(key) ?? NO_POOL_VERDICTS, seen(group, candidates, consultation.verdicts), clock.monotonicMs()),
      )
    // Whether or not the group still waits: others may be waiting for their turn to ask.
    group.phase = decided(
      consultation.kind === 'undecided'
        ? consultation
        : { kind: 'answered', answer: answerWith(group, consultation.verdicts, nodes) },
    )
    deps.onDecided()
  }

  const seen = (group: Group, candidates: readonly PlacementNode[], verdicts: ReadonlyMap<NodeId, Verdict>) =>
    candidates.flatMap(({ id, pool, services }) => {
      const verdict = verdicts.get(id)
      if (verdict === undefined) return []
      return [{ id, pool, isFresh: services.size === 0 || deps.joinedAtMsOf(id) >= group.sinceMs, verdict }]
    })

  const remember = (key: string, verdicts: PoolVerdicts) => {
    pools.delete(key)
    pools.set(key, verdicts)
    const [oldest] = pools.keys()
    if (pools.size > MAX_REMEMBERED && oldest !== undefined) pools.delete(oldest)
  }

  return {
    open,
    settle(turn, refused, structure) {
      for (const key of [...turn.answers.keys(), ...turn.builtIn.keys()]) {
        const group = groups.get(key)
        if (group?.phase.kind !== 'decided') continue
        if (!refused.has(key)) {
          groups.delete(key)
          continue
        }
        const members = new Set(turn.requests.flatMap((request) => (request.group === key ? [request.id] : [])))
        group.refused = { decision: group.phase.decision, structure, atMs: clock.monotonicMs(), members }
        group.phase = { kind: 'idle' }
      }
    },
    answer(key) {
      const decision = groups.get(key)?.refused?.decision
      return decision?.kind === 'answered' ? decision.answer : null
    },
    builtInBecause(key) {
      const decision = groups.get(key)?.refused?.decision
      return decision?.kind === 'undecided' ? decision.why : null
    },
    asking(key) {
      const group = groups.get(key)
      return group !== undefined && group.refused === null && group.phase.kind !== 'decided' ? group.scheduler : null
    },
    poolVerdicts(request) {
      const group = groups.get(request.group)
      if (request.rules.scheduler === undefined || group?.refused?.decision.kind === 'undecided') return null
      return pools.get(request.group) ?? NO_POOL_VERDICTS
    },
    async preview(members, nodes, labels) {
      const [request] = members as readonly [PlacementRequest]
      const scheduler = request.rules.scheduler as string
      const candidates = candidatesFor(request, openBoard(nodes, [request], deps.options), deps.options)
      if (candidates.length === 0) return { kind: 'answered', verdicts: new Map() }
      return await book.consult(request, candidates, { scheduler, count: members.length, labels, dryRun: true })
    },
  }
}

function decided(decision: Decision): Group['phase'] {
  return { kind: 'decided', decision }
}

/** Requests that name a scheduler, by group. */
export function byGroup(pending: readonly PlacementRequest[]): ReadonlyMap<string, PlacementRequest[]> {
  const custom = new Map<string, PlacementRequest[]>()
  for (const request of pending) {
    if (request.rules.scheduler === undefined) continue
    const members = custom.get(request.group)
    if (members) members.push(request)
    else custom.set(request.group, [request])
  }
  return custom
}

/** Monotonic ms to wait; 0 when the group is to be asked about now. */
function waitBeforeAsking({ refused }: Group, members: readonly PlacementRequest[], structure: number, nowMs: number): number {
  if (refused === null) return 0
  const isChanged = structure !== refused.structure || members.some((request) => !refused.members.has(request.id))
  const wasAsked = refused.decision.kind === 'answered' && refused.decision.answer.verdicts.size > 0
  const restMs = !isChanged ? ASK_AGAIN_MS : wasAsked ? ASK_CHANGED_MS : 0
  return Math.max(0, refused.atMs + restMs - nowMs)
}

/**
 * What it accepted now, and what it turned down now or when it was last asked about it: a node that is closed for a while is not taken
 * back in the belief that it would be welcome.
 */
function answerWith(
  { scheduler, refused }: Group,
  verdicts: ReadonlyMap<NodeId, Verdict>,
  nodes: readonly PlacementNode[],
): GroupAnswer {
  const before = refused?.decision
  if (before?.kind !== 'answered') return { scheduler, verdicts, others: 'closed' }
  const all = new Map<NodeId, Verdict>()
  for (const { id } of nodes) {
    const earlier = before.answer.verdicts.get(id)
    if (earlier?.kind === 'reject') all.set(id, earlier)
  }
  for (const [id, verdict] of verdicts) all.set(id, verdict)
  return { scheduler, verdicts: all, others: 'closed' }
}
