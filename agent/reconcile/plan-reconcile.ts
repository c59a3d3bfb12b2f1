/**
 * What to do next on this node, from what shall run and what does. Pure.
 *
 * Per instance at most one action at a time, chosen from scratch in every pass: nothing depends on what an earlier life of the
 * agent had in mind, so it may die between any two steps. Marks change only the memory; steps touch the world. Safety: names of
 * containers are derived from the instance, so a repeated `create` finds the first one (I2), and a container without an
 * assignment is touched only when the desired set is known.
 */
import type { Plan, Reason } from '../../shared/plan.ts'
import { earliest } from '../../shared/plan.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import type { InstanceMemory, RuntimeName, SeenContainer, SeenHealth } from './instance-memory.ts'
import { planInstance } from './plan-instance.ts'

/** Changes of the world; each is safe to repeat and to lose. */
export type Step =
  | { readonly kind: 'lookForImage'; readonly instance: string; readonly runtime: RuntimeName; readonly image: string }
  | { readonly kind: 'pull'; readonly instance: string; readonly runtime: RuntimeName; readonly image: string }
  | {
      readonly kind: 'create'
      readonly instance: string
      readonly runtime: RuntimeName
      readonly container: string
      readonly sharesNetworkOf: string | null
    }
  | { readonly kind: 'start'; readonly instance: string; readonly runtime: RuntimeName; readonly id: string }
  | {
      readonly kind: 'stop'
      readonly instance: string
      readonly runtime: RuntimeName
      readonly id: string
      readonly graceMs: number
    }
  | { readonly kind: 'remove'; readonly instance: string; readonly runtime: RuntimeName; readonly id: string }
  /** Opens, or moves, the way in. */
  | { readonly kind: 'open'; readonly instance: string; readonly target: string; readonly main: SeenContainer }
  /** Takes it out of catalogs and routes; what is under way goes on. */
  | { readonly kind: 'withdraw'; readonly instance: string }
  /** Closes the way in and forgets what is kept for it. */
  | { readonly kind: 'clear'; readonly instance: string }

/** A change of memory alone; the next pass of the planner sees it at once. `forget` ends the memory. */
export interface Mark {
  readonly kind: 'mark'
  readonly instance: string
  readonly patch: Partial<InstanceMemory>
  readonly forget?: boolean
}

export type ReconcileAction = Step | Mark

export interface ReconcileLimits {
  /** A withdrawal needs this long to reach everyone who routes. */
  readonly settleMs: number
  readonly parallelSteps: number
  readonly parallelPulls: number
  readonly parallelStops: number
  /** Longest wait between restarts. */
  readonly backoffCapMs: number
}

export const DEFAULT_LIMITS: ReconcileLimits = {
  settleMs: 1_500,
  parallelSteps: 8,
  parallelPulls: 2,
  parallelStops: 16,
  backoffCapMs: 60_000,
}

export interface ReconcileState {
  /** null until a desired set is known (saved or sent): then nothing is stopped for not being in it. */
  readonly desired: ReadonlyMap<string, Assignment> | null
  readonly containers: readonly SeenContainer[]
  readonly memory: ReadonlyMap<string, InstanceMemory>
  /** By run of the container. */
  readonly health: Readonly<Record<string, SeenHealth>>
  /** Instances with a step under way (or seen before the last one ended): they are left alone. */
  readonly busy: ReadonlySet<string>
  /** What is under way, for the limits. */
  readonly underWay: readonly Step[]
  readonly inFlight: (instance: string) => number
  /** Runtimes that this node has; `silent` ones do not answer: their instances are left alone (row 19). */
  readonly runtimes: ReadonlyMap<RuntimeName, 'answers' | 'silent'>
  /** Monotonic ms of the last word from a coordinator; null: none since the agent started. */
  readonly lastContactMs: number | null
  /** Monotonic ms at which the desired set was last confirmed by a coordinator; null: never. */
  readonly confirmedAtMs: number | null
  readonly agentStartedMs: number
  /** Epoch ms. */
  readonly nowWallMs: number
  readonly limits: ReconcileLimits
}

/** Decides one pass. `nowMs` and `wakeAtMs` are monotonic ms. */
export function planReconcile(state: ReconcileState, nowMs: number): Plan<ReconcileAction> {
  const actions: ReconcileAction[] = []
  const reasons: Reason[] = []
  let wakeAtMs: number | null = null
  const room = roomOf(state)
  const byInstance = Map.groupBy(state.containers, (container) => container.instance)

  for (const instance of knownInstances(state)) {
    if (state.busy.has(instance)) continue
    const assignment = state.desired?.get(instance) ?? null
    if (assignment === null && state.desired === null) {
      reasons.push({ subject: instance, code: 'desired-unknown', text: 'no desired set is known yet, so it is left alone' })
      continue
    }
    const containers = byInstance.get(instance) ?? []
    const silent = silentRuntimeOf(state, assignment, containers)
    if (silent !== null) {
      reasons.push({ subject: instance, code: 'engine-silent', text: `${silent} does not answer: its state is unknown` })
      continue
    }
    const decision = planInstance({ instance, assignment, containers, state }, nowMs)
    if (decision.reason) reasons.push(decision.reason)
    wakeAtMs = earliest(wakeAtMs, decision.wakeAtMs)
    const { action } = decision
    if (action === null) continue
    if (action.kind === 'mark' || takeRoom(room, action)) actions.push(action)
    else reasons.push({ subject: instance, code: 'waits-for-room', text: `waits to ${action.kind}: enough steps are under way` })
  }
  return { actions, reasons, wakeAtMs }
}

function knownInstances(state: ReconcileState): string[] {
  const known = new Set<string>([...(state.desired?.keys() ?? []), ...state.memory.keys()])
  for (const container of state.containers) known.add(container.instance)
  return [...known].sort()
}

function silentRuntimeOf(
  state: ReconcileState,
  assignment: Assignment | null,
  containers: readonly SeenContainer[],
): string | null {
  const wanted = new Set<RuntimeName>(containers.map((container) => container.runtime))
  if (assignment) wanted.add(assignment.unit.runtime)
  // Without an assignment it may have containers in any runtime that we cannot see now.
  else for (const name of state.runtimes.keys()) wanted.add(name)
  for (const name of wanted) if (state.runtimes.get(name) === 'silent') return name
  return null
}

interface Room {
  steps: number
  pulls: number
  stops: number
  readonly images: Set<string>
}

function roomOf({ underWay, limits }: ReconcileState): Room {
  const count = (kind: Step['kind']) => underWay.filter((step) => step.kind === kind).length
  const pulls = count('pull')
  const stops = count('stop')
  return {
    steps: limits.parallelSteps - (underWay.length - pulls - stops),
    pulls: limits.parallelPulls - pulls,
    stops: limits.parallelStops - stops,
    images: new Set(underWay.flatMap((step) => (step.kind === 'pull' ? [step.image] : []))),
  }
}

/** Whether the step may begin now; one image is pulled once, whoever waits for it. */
function takeRoom(room: Room, step: Step): boolean {
  if (step.kind === 'pull') {
    if (room.pulls <= 0 || room.images.has(step.image)) return false
    room.pulls -= 1
    room.images.add(step.image)
    return true
  }
  const kind = step.kind === 'stop' ? 'stops' : 'steps'
  if (room[kind] <= 0) return false
  room[kind] -= 1
  return true
}
