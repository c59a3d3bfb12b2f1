/**
 * What an agent remembers of one instance between passes, and the states derived from it. Lives in memory only: after a
 * restart of the agent it is built again from what runs. Pure. Times are monotonic ms unless they say wall.
 */
import type { InstancePhase, InstanceStatus, PortBinding } from '../../shared/model/observation.ts'
import { INSTANCE_PHASES } from '../../shared/model/observation.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import type { ObservedContainer } from '../runtime/runtime.ts'

export type RuntimeName = 'docker' | 'process'

/** A container, and the runtime that has it. */
export interface SeenContainer extends ObservedContainer {
  readonly runtime: RuntimeName
}

export interface SeenHealth {
  readonly status: 'starting' | 'healthy' | 'unhealthy'
  readonly text: string
}

export interface InstanceMemory {
  readonly phase: InstancePhase
  readonly message: string
  /** What is known of the unit's images; a missing one has not been looked for. */
  readonly images: Readonly<Record<string, 'present' | 'absent'>>
  /** Failed runs in a row; a run of the policy's window forgets them. */
  readonly failures: number
  readonly restarts: number
  /** Failed steps in a row (pull, hooks, engine); they back off but never make an instance `failed`. */
  readonly stepFailures: number
  /** Nothing is tried before. */
  readonly notBeforeMs: number
  /** Runs (`runOf`) whose end has been counted, or that must end: what still runs of them is stopped. */
  readonly condemned: readonly string[]
  /** The runs of all containers, once all of them run together; with the time since. */
  readonly run: { readonly key: string; readonly sinceMs: number } | null
  /** When this run is warm; null before it was healthy. */
  readonly warmAtMs: number | null
  /** Where the ingress leads; null while it is not open. */
  readonly target: string | null
  readonly ports: readonly PortBinding[]
  /** Since when it is being taken out of service; null while it is not. */
  readonly drainSinceMs: number | null
  readonly withdrawn: boolean
  /** Epoch ms (wall) of the first time it was ready. */
  readonly readyAtMs: number | null
  /** A start failed: the containers that do not run are made anew. */
  readonly recreate: boolean
  /** It ran before this agent came. */
  readonly adopted: boolean
  /** When it was stopped because the coordinator was away too long for a strict singleton; null: it was not. */
  readonly fencedAtMs: number | null
  /** What is open or registered for it has been cleared. */
  readonly cleared: boolean
  /** Grace of its unit, for when its assignment is gone. */
  readonly stopGraceMs: number
}

/** Crash-looping is said from this many failed runs in a row. */
const CRASH_LOOP_FAILURES = 3

export function freshMemory(): InstanceMemory {
  return {
    phase: 'placed',
    message: '',
    images: {},
    failures: 0,
    restarts: 0,
    stepFailures: 0,
    notBeforeMs: 0,
    condemned: [],
    run: null,
    warmAtMs: null,
    target: null,
    ports: [],
    drainSinceMs: null,
    withdrawn: false,
    readyAtMs: null,
    recreate: false,
    adopted: false,
    fencedAtMs: null,
    cleared: false,
    stopGraceMs: 10_000,
  }
}

/** The later of two phases: progress is monotonic. A failed instance that was taken away ends as `stopped`. */
export function advancePhase(from: InstancePhase, to: InstancePhase): InstancePhase {
  if (from === 'failed' && to === 'stopped') return to
  return INSTANCE_PHASES.indexOf(to) > INSTANCE_PHASES.indexOf(from) ? to : from
}

export function isTerminal(phase: InstancePhase): boolean {
  return phase === 'stopped' || phase === 'failed' || phase === 'lost'
}

/** One run of one container: unique for ever. */
export function runOf(container: ObservedContainer): string {
  return `${container.id}@${container.startedAtMs ?? '-'}`
}

/** Where a container is reached, as a comparable text. */
export function targetKeyOf(container: ObservedContainer): string {
  const ports = Object.entries(container.portMap).sort(([a], [b]) => Number(a) - Number(b))
  return `${container.address ?? ''} ${ports.map(([from, to]) => `${from}>${to}`).join(',')}`
}

export interface StatusInput {
  readonly instance: string
  /** null when it is not (or no longer) assigned. */
  readonly assignment: Assignment | null
  /** Its containers, of any specification. */
  readonly containers: readonly SeenContainer[]
  readonly memory: InstanceMemory
  /** By run. */
  readonly health: Readonly<Record<string, SeenHealth>>
  readonly nowMs: number
  /** The engine does not answer: what is known is old. */
  readonly engineSilent: boolean
}

/** What is reported of an instance. */
export function statusOf(input: StatusInput): InstanceStatus {
  const { assignment, memory, containers } = input
  const mainName = assignment?.unit.containers[0]?.name
  const main = containers.find((item) => item.container === mainName) ?? containers[0]
  return {
    instance: input.instance,
    specHash: assignment?.specHash ?? main?.specHash ?? '',
    phase: memory.phase,
    healthy: isHealthy(input, main),
    restarts: memory.restarts,
    crashLooping: memory.failures >= CRASH_LOOP_FAILURES,
    ports: memory.ports,
    startedAtMs: main?.state === 'running' ? main.startedAtMs : null,
    readyAtMs: memory.readyAtMs,
    containerId: main?.id ?? '',
    message: (input.engineSilent ? 'the container engine does not answer; last known state' : memory.message).slice(0, 1000),
  }
}

function isHealthy({ assignment, memory, containers, health, nowMs }: StatusInput, main: SeenContainer | undefined): boolean {
  if (
    assignment === null ||
    main === undefined ||
    memory.run === null ||
    memory.drainSinceMs !== null ||
    memory.fencedAtMs !== null
  )
    return false
  if (memory.phase !== 'warming' && memory.phase !== 'ready') return false
  if (memory.phase === 'ready' && (memory.warmAtMs === null || nowMs < memory.warmAtMs)) return false
  if (memory.target !== targetKeyOf(main)) return false
  return assignment.unit.containers.every((spec) => {
    const container = containers.find((item) => item.container === spec.name && item.specHash === assignment.specHash)
    if (container === undefined || container.state !== 'running' || memory.condemned.includes(runOf(container))) return false
    return spec.health === undefined || health[runOf(container)]?.status === 'healthy'
  })
}
