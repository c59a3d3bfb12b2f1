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
import { commitRoom, jsonBytes } from '../state/commit-room.ts'
import { whoChose } from './answers.ts'
import { chargeText, type Explanation } from './explain.ts'
import { kindOf, refusalEvents } from './refusal-events.ts'
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
  /** Steady time, in which nodes have joined; default the wall clock. */
  steadyNowMs?(): number
  /** See preemption.ts. */
  readonly evictedPercentPerHour?: number
}

/** What a service's record grows by for each place of data that it remembers, and punctuation. */
const HOME_BYTES = 40
/** Slots of one service whose data's place is remembered beside those of its instances. */
const MAX_HOMES = 1_000
/** How often to see whether something refused may evict others: the fleet may find that it can buy nothing. */
const PREEMPTION_LOOK_MS = 5_000
/** A look at a large cluster takes several passes; between them everything else has its turn. */
const PREEMPTION_GO_ON_MS = 500

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
    steadyNowMs: deps.steadyNowMs ?? (() => clock.now()),
    onDecided: () => loop.poke(),
  })
  const listeners = new Set<() => void>()
  let refused = new Map<InstanceId, Refusal>()
  /** Why each of them waits, as the audit trail has it. */
  const told = new Map<InstanceId, string>()
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
      const { size, change, alone } = nextChunk(state, rest, clock.now(), options, turn.builtIn)
      rest = rest.slice(size)
      if (alone)
        logger.error('an instance cannot be placed: its records do not fit into one commit', { instance: alone.instance })
      const outcome = await state.commit(change)
      if (outcome.kind === 'committed') continue
      if (outcome.kind !== 'conflict')
        throw new RetryableError(`placement could not be stored: ${outcome.kind}: ${outcome.detail}`)
      again = true
    }
    desk.settle(turn, new Set(plan.refusals.map(({ request }) => request.group)), structure)
    const refusals = standing.length === 0 ? plan.refusals : [...plan.refusals, ...standing]
    const isTold = await recordRefusals(refusals)
    refusedAt = again || !isTold ? -1 : structure
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
    const now = new Map(refusals.map((refusal) => [refusal.instance, refusal]))
    const changed =
      now.size !== refused.size || refusals.some((refusal) => kindOf(refused.get(refusal.instance)) !== kindOf(refusal))
    refused = now
    for (const instance of told.keys()) if (!now.has(instance)) told.delete(instance)
    const untold = refusals.filter((refusal) => told.get(refusal.instance) !== kindOf(refusal))
    let isTold = true
    if (untold.length > 0) {
      const change = state.change()
      for (const event of refusalEvents(untold)) {
        change.event(event)
        logger.info('instances fit nowhere', { subject: event.subject, reason: event.message })
      }
      const outcome = await state.commit(change)
      isTold = outcome.kind === 'committed'
      // What could not be written is told with the next pass.
      if (!isTold) logger.warn('refusals were not recorded', { outcome: outcome.kind })
      else for (const refusal of untold) told.set(refusal.instance, kindOf(refusal))
    }
    if (changed) for (const listener of [...listeners]) listener()
    return isTold
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
 * is no longer pending, or whose node closed meanwhile, is left out and planned again. `alone`: one that does not fit into a commit by
 * itself, and is left out.
 */
function nextChunk(
  state: State,
  assignments: readonly Assignment[],
  atMs: number,
  options: PlacementOptions,
  builtIn: ReadonlyMap<string, string>,
) {
  const { snapshot } = state
  const change = state.change()
  const room = commitRoom()
  const placed = new Map<NodeId, InstanceRecord[]>()
  const waiting = new Map<ServiceId, ReadonlyMap<InstanceId, InstanceRecord>>()
  /** Services whose record changes, and the places of data that it gets. */
  const homes = new Map<ServiceId, Record<string, NodeId>>()
  const moved = new Set<InstanceId>()
  let size = 0
  let alone: Assignment | null = null
  for (const assignment of assignments) {
    const { instance, node: nodeId, chosenBy, request } = assignment
    const id = serviceIdOf(instance)
    const here = waiting.get(id) ?? waitingOf(snapshot, id)
    waiting.set(id, here)
    const record = here.get(instance)
    const isOpen = snapshot.get('node', nodeId)?.availability === 'active'
    if (record !== undefined && isOpen) {
      const placedBy = whoChose(request.rules.scheduler, chosenBy, builtIn.get(request.group) ?? null)
      const added = { ...record, nodeId, placedAtMs: atMs, ...(placedBy === null ? {} : { placedBy }) }
      const event = {
        actor: 'placement',
        type: 'instance.placed',
        subject: record.id,
        message: `${record.id} goes to ${nodeId}: ${placedBy === null ? '' : `${placedBy}; `}${placedReason(assignment, options)}`,
        severity: 'info',
        data: { node: nodeId },
      } as const
      const others = placed.get(nodeId)
      const bytes =
        jsonBytes(added) +
        jsonBytes(event) +
        HOME_BYTES +
        (homes.has(id) ? 0 : jsonBytes(snapshot.get('service', id))) +
        (others ? 0 : jsonBytes(snapshot.get('assignments', nodeId) ?? { nodeId, instances: [] }))
      if (!room.take((homes.has(id) ? 0 : 1) + (others ? 0 : 1), bytes)) {
        if (size > 0) break
        alone = assignment
        size = 1
        break
      }
      const places = homes.get(id) ?? {}
      homes.set(id, places)
      if (others) others.push(added)
      else placed.set(nodeId, [added])
      moved.add(record.id)
      if (request.volumes.length > 0 && !request.global) places[parseInstanceId(record.id)?.slot ?? 0] = nodeId
      change.event(event)
    }
    size += 1
  }

  for (const [nodeId, added] of placed)
    change.put('assignments', nodeId, {
      nodeId,
      instances: [...(snapshot.get('assignments', nodeId)?.instances ?? []), ...added],
    })
  for (const [id, places] of homes) {
    const service = snapshot.get('service', id)
    if (!service) continue
    const pending = service.pending.filter((record) => !moved.has(record.id))
    const hasPlaces = Object.keys(places).length > 0
    change.put('service', id, { ...service, pending, ...(hasPlaces ? { homes: homesWith(service, places, snapshot) } : {}) })
  }
  return { size, change, alone }
}

function waitingOf(snapshot: Snapshot, id: ServiceId): ReadonlyMap<InstanceId, InstanceRecord> {
  const pending = snapshot.get('service', id)?.pending ?? []
  return new Map(pending.flatMap((record) => (record.goal === 'run' ? [[record.id, record] as const] : [])))
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
