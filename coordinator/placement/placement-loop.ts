/**
 * Gives waiting instances a node: collects `ServiceRecord.pending`, plans, commits moves into `NodeAssignments`. An instance
 * is in exactly one of the two objects at any time, because both change in one commit. What fits nowhere stays pending; why is
 * kept in memory, since it follows from state and observations.
 */
import type { Clock } from '../../shared/clock.ts'
import { RetryableError } from '../../shared/errors.ts'
import type { Logger } from '../../shared/logger.ts'
import { createLoop, type Loop } from '../../shared/loop.ts'
import { type InstanceId, type NodeId, parseInstanceId, type ServiceId, serviceIdOf } from '../../shared/model/identity.ts'
import type { InstanceRecord, ServiceRecord } from '../state/objects.ts'
import type { Observed } from '../state/observed.ts'
import type { Snapshot, State } from '../state/state.ts'
import { MAX_COMMIT_BYTES, MAX_COMMIT_OPERATIONS } from '../state/store.ts'
import { whoChose } from './answers.ts'
import { chargeText, type Explanation, explanationKind, renderExplanation } from './explain.ts'
import { earliest } from '../../shared/plan.ts'
import { createSchedulerDesk, type SchedulerDesk } from '../schedulers/desk.ts'
import { createSchedulerBook, type SchedulerBook } from '../schedulers/scheduler-book.ts'
import { DEFAULT_PLACEMENT_OPTIONS, type PlacementNode, type PlacementOptions, type PlacementRequest } from './model.ts'
import { createNodeView, requestOfRecord } from './node-view.ts'
import { type Assignment, planPlacement, type Refusal } from './plan-placement.ts'
import { PRIORITY_STEP } from './plan-preemption.ts'
import { createPreemption } from './preemption.ts'
import type { ChargeOf } from './requests.ts'

export interface PlacementLoop extends Loop {
  /** Why an instance waits; null when it does not, or was not looked at yet. */
  explanation(instance: InstanceId): Explanation | null
  /** Everything that fits nowhere at present, by instance id. */
  refusals(): readonly Refusal[]
  /** Called after each pass in which the refusals changed; returns the unsubscriber. */
  onRefusals(listener: () => void): () => void
  /** Nodes as placement sees them now. */
  nodes(): readonly PlacementNode[]
  /** What custom schedulers said about what waits. */
  readonly desk: SchedulerDesk
  /** The custom scheduler that an instance waits for; null when it does not. */
  asking(instance: InstanceId): string | null
}

export interface PlacementLoopDeps {
  readonly state: State
  readonly observed: Observed
  readonly clock: Clock
  readonly logger: Logger
  readonly config?: Partial<PlacementOptions>
  readonly chargeOf?: ChargeOf
  /** Subscribes to services whose charge changed. */
  readonly onChargeChange?: (listener: (service: ServiceId) => void) => () => void
  /** Whether no machine is being bought, or will be, for an instance that fits nowhere: only then others are evicted for it. Absent: never. */
  readonly nothingBoughtFor?: (instance: InstanceId) => boolean
  /** Default none: the built-in scheduler chooses for every service. */
  readonly schedulers?: SchedulerBook
  /** See preemption.ts. */
  readonly evictedPercentPerHour?: number
}

/** Room below the store's limit for keys, versions and punctuation that the estimate leaves out. */
const CHUNK_BYTES = MAX_COMMIT_BYTES - 50_000
/** Slots of one service whose data's place is remembered beside those of its instances. */
const MAX_HOMES = 1_000
/** How often to see whether something refused may evict others: the fleet may find that it can buy nothing. */
const PREEMPTION_LOOK_MS = 5_000
/** A look at a large cluster takes several passes; between them everything else has its turn. */
const PREEMPTION_GO_ON_MS = 500
/** Instances named in one `instance.unplaced` event. */
const NAMED_PER_EVENT = 50

export function createPlacementLoop(deps: PlacementLoopDeps): PlacementLoop {
  const { state, observed, clock } = deps
  const logger = deps.logger.with({ loop: 'placement' })
  const options: PlacementOptions = { ...DEFAULT_PLACEMENT_OPTIONS, ...deps.config }
  const view = createNodeView(deps)
  const preemption = createPreemption({ ...deps, logger })
  const desk = createSchedulerDesk({
    book: deps.schedulers ?? createSchedulerBook({ schedulers: [], state, clock, logger }),
    clock,
    options,
    labelsOf(service) {
      const [app = '', name = ''] = service.split('/')
      return state.snapshot.get('app', app)?.spec.services.find((spec) => spec.name === name)?.labels ?? {}
    },
    joinedAtMsOf: (node) => state.snapshot.get('node', node)?.joinedAtMs ?? 0,
    onDecided: () => loop.poke(),
  })
  const listeners = new Set<() => void>()
  let refused = new Map<InstanceId, Refusal>()
  /** Structure of the nodes (node-view.ts) that `refused` was found with. */
  let refusedAt = -1
  let unsubscribers: (() => void)[] = []

  const pendingRequests = (): PlacementRequest[] => {
    const requests: PlacementRequest[] = []
    for (const service of state.snapshot.all('service').values()) {
      for (const record of service.pending) {
        if (record.goal !== 'run' || state.snapshot.get('app', parseInstanceId(record.id)?.app ?? '')?.removing) continue
        const request = requestOfRecord(record, state.snapshot, deps.chargeOf)
        if (request) requests.push(request)
      }
    }
    return requests
  }

  const run = async (signal: AbortSignal) => {
    const pending = pendingRequests()
    const nodes = pending.length > 0 ? view.nodes() : []
    const turn = desk.open(pending, nodes, view.structure)
    const { requests, answers, resting } = turn
    const standing =
      resting.size === 0 ? [] : pending.flatMap(({ id, group }) => (resting.has(group) ? (refused.get(id) ?? []) : []))
    // What was refused is refused again while neither it nor any node changed: most changes of the state are neither.
    const isQuiet = !turn.hasNews && requests.length + standing.length === refused.size && view.structure === refusedAt
    if (pending.length > 0 && isQuiet && requests.every((request) => isSame(request, refused.get(request.id)?.request)))
      return earliest(turn.wakeAtMs, await preempt([...refused.values()]))
    const structure = view.structure
    const plan = planPlacement({ requests, nodes, options, answers })
    let again = false
    for (let rest = plan.assignments; rest.length > 0 && !signal.aborted; ) {
      const { size, change } = nextChunk(state, rest, clock.now(), options, turn.builtIn)
      rest = rest.slice(size)
      const outcome = await state.commit(change)
      if (outcome.kind === 'committed') continue
      if (outcome.kind !== 'conflict')
        throw new RetryableError(`placement could not be stored: ${outcome.kind}: ${outcome.detail}`)
      again = true
    }
    desk.settle(turn, new Set(plan.refusals.map(({ request }) => request.group)), structure)
    const refusals = standing.length === 0 ? plan.refusals : [...plan.refusals, ...standing]
    await recordRefusals(refusals)
    refusedAt = again ? -1 : structure
    if (again) return clock.now()
    return signal.aborted ? null : earliest(turn.wakeAtMs, await preempt(refusals))
  }

  /** The fleet answers after the refusals were told, so this is looked at again until it has. */
  const preempt = async (refusals: readonly Refusal[]) => {
    const { nothingBoughtFor } = deps
    if (nothingBoughtFor === undefined || refusals.length === 0) return null
    // What a custom scheduler chooses for evicts nobody: it might not want the room either.
    const helpless = refusals.filter(
      ({ instance, request: { global, rules } }) =>
        !global && rules.scheduler === undefined && rules.priority >= PRIORITY_STEP && nothingBoughtFor(instance),
    )
    const goesOn = await preemption.run(
      helpless.map(({ request }) => request),
      view.nodes(),
    )
    return clock.now() + (goesOn ? PREEMPTION_GO_ON_MS : PREEMPTION_LOOK_MS)
  }

  const recordRefusals = async (refusals: readonly Refusal[]) => {
    const news = new Map<string, Refusal[]>()
    for (const refusal of refusals) {
      const kind = explanationKind(refusal.explanation)
      const before = refused.get(refusal.instance)
      if (before && explanationKind(before.explanation) === kind) continue
      const key = `${refusal.request.group}\n${kind}`
      const same = news.get(key)
      if (same) same.push(refusal)
      else news.set(key, [refusal])
    }
    const changed = news.size > 0 || refusals.length !== refused.size
    refused = new Map(refusals.map((refusal) => [refusal.instance, refusal]))
    if (news.size > 0) {
      const change = state.change()
      for (const group of news.values()) {
        const [first] = group as [Refusal]
        const text = renderExplanation(first.explanation)
        const more = group.length > 1 ? ` and ${group.length - 1} more of ${first.request.service}` : ''
        change.event({
          actor: 'placement',
          type: 'instance.unplaced',
          subject: first.instance,
          message: `${first.instance}${more}: ${text}`,
          severity: 'warning',
          data: { instances: group.slice(0, NAMED_PER_EVENT).map((refusal) => refusal.instance), count: group.length },
        })
        logger.info('instances fit nowhere', { service: first.request.service, count: group.length, reason: text })
      }
      const outcome = await state.commit(change)
      if (outcome.kind !== 'committed') logger.warn('refusals were not recorded', { outcome: outcome.kind })
    }
    if (changed) for (const listener of [...listeners]) listener()
  }

  const loop = createLoop({ name: 'placement', clock, logger, run })
  return {
    name: 'placement',
    start() {
      if (unsubscribers.length > 0) return
      unsubscribers = [
        state.onChange(({ kinds }) => {
          if (kinds.has('service') || kinds.has('assignments') || kinds.has('node') || kinds.has('app')) loop.poke()
        }),
        observed.onChange(({ nodes, useOnly }) => {
          if (!useOnly && nodes.size > 0) loop.poke()
        }),
        // What is charged by measured use may fit now that did not.
        deps.onChargeChange?.(() => {
          if (refused.size > 0) loop.poke()
        }) ?? (() => {}),
      ]
      loop.start()
    },
    poke: () => loop.poke(),
    async stop() {
      for (const unsubscribe of unsubscribers) unsubscribe()
      unsubscribers = []
      await loop.stop()
    },
    explanation(instance) {
      const refusal = refused.get(instance)
      if (!refusal) return null
      const { charge, group, rules } = refusal.request
      const why = desk.builtInBecause(group)
      const notes = [
        ...(charge.learned ? [`it is charged ${chargeText(charge)}, as measured`] : []),
        ...(why === null ? [] : [`the built-in scheduler decided, not ${rules.scheduler}: ${why}`]),
      ]
      return notes.length === 0 ? refusal.explanation : { ...refusal.explanation, note: notes.join('; ') }
    },
    desk,
    asking(instance) {
      const record = state.snapshot.instances().get(instance)
      const request = record && record.nodeId === null ? requestOfRecord(record, state.snapshot, deps.chargeOf) : null
      return request?.rules.scheduler === undefined ? null : desk.asking(request.group)
    },
    refusals: () => [...refused.values()],
    onRefusals(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    nodes: () => view.nodes(),
  }
}

/**
 * The change for as many assignments, from the first on, as one commit holds. Built against the snapshot of this moment: what
 * is no longer pending, or whose node closed meanwhile, is left out and planned again.
 */
function nextChunk(
  state: State,
  assignments: readonly Assignment[],
  atMs: number,
  options: PlacementOptions,
  builtIn: ReadonlyMap<string, string>,
) {
  const { snapshot } = state
  const moves = new Map<string, Assignment[]>()
  const services = new Set<string>()
  let bytes = 0
  let size = 0
  for (const assignment of assignments) {
    const service = serviceIdOf(assignment.instance)
    const newService = !services.has(service)
    const newNode = !moves.has(assignment.node)
    const operations = services.size + moves.size + (newService ? 1 : 0) + (newNode ? 1 : 0)
    let more = 400
    if (newService) more += byteLength(snapshot.get('service', service))
    if (newNode) more += byteLength(snapshot.get('assignments', assignment.node))
    if (size > 0 && (operations > MAX_COMMIT_OPERATIONS || bytes + more > CHUNK_BYTES)) break
    bytes += more
    size += 1
    services.add(service)
    const onNode = moves.get(assignment.node)
    if (onNode) onNode.push(assignment)
    else moves.set(assignment.node, [assignment])
  }

  const change = state.change()
  const moved = new Set<InstanceId>()
  const homes = new Map<string, Record<string, NodeId>>()
  const waiting = new Map<InstanceId, InstanceRecord>()
  for (const id of services)
    for (const record of snapshot.get('service', id)?.pending ?? []) if (record.goal === 'run') waiting.set(record.id, record)
  for (const [nodeId, onNode] of moves) {
    if (snapshot.get('node', nodeId)?.availability !== 'active') continue
    const present = snapshot.get('assignments', nodeId)?.instances ?? []
    const added = onNode.flatMap((assignment) => {
      const record = waiting.get(assignment.instance)
      if (!record) return []
      moved.add(record.id)
      const { chosenBy, request } = assignment
      const placedBy = whoChose(request.rules.scheduler, chosenBy, builtIn.get(request.group) ?? null)
      if (assignment.request.volumes.length > 0 && !assignment.request.global) {
        const service = serviceIdOf(record.id)
        homes.set(service, { ...homes.get(service), [parseInstanceId(record.id)?.slot ?? 0]: nodeId })
      }
      change.event({
        actor: 'placement',
        type: 'instance.placed',
        subject: record.id,
        message: `${record.id} goes to ${nodeId}: ${placedBy === null ? '' : `${placedBy}; `}${placedReason(assignment, options)}`,
        severity: 'info',
        data: { node: nodeId },
      })
      return [{ ...record, nodeId, placedAtMs: atMs, ...(placedBy === null ? {} : { placedBy }) }]
    })
    if (added.length > 0) change.put('assignments', nodeId, { nodeId, instances: [...present, ...added] })
  }
  for (const id of services) {
    const service = snapshot.get('service', id)
    if (!service) continue
    const pending = service.pending.filter((record) => !moved.has(record.id))
    const moves = homes.get(id)
    if (pending.length < service.pending.length)
      change.put('service', id, { ...service, pending, ...(moves ? { homes: homesWith(service, moves, snapshot) } : {}) })
  }
  return { size, change }
}

/** Data stays where it is when its instance is gone: the next generation of the slot has to go there. Bounded: the lowest slots, which are wanted longest. */
function homesWith(service: ServiceRecord, moves: Readonly<Record<string, NodeId>>, snapshot: Snapshot): Record<string, NodeId> {
  const there = Object.entries(service.homes ?? {}).filter(
    ([slot, nodeId]) => !(slot in moves) && snapshot.get('node', nodeId) !== undefined,
  )
  return { ...Object.fromEntries(there.slice(0, MAX_HOMES)), ...moves }
}

/** Groups name service and revision: of equal groups only what is charged can differ. */
function isSame(request: PlacementRequest, before: PlacementRequest | undefined): boolean {
  return (
    before !== undefined &&
    before.group === request.group &&
    before.charge.cpuMillis === request.charge.cpuMillis &&
    before.charge.memoryBytes === request.charge.memoryBytes &&
    before.charge.diskBytes === request.charge.diskBytes
  )
}

function placedReason({ request, siblings, use }: Assignment, options: PlacementOptions): string {
  const strategy = request.rules.strategy ?? options.strategy
  const learned = request.charge.learned ? `; charged ${chargeText(request.charge)}, as measured` : ''
  return `${strategy}, ${siblings} of ${request.service} there before, ${Math.round(use * 100)} % reserved with it${learned}`
}

function byteLength(value: unknown): number {
  return value === undefined ? 100 : Buffer.byteLength(JSON.stringify(value))
}
