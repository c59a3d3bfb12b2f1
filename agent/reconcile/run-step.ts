/** Does one step in the world and says what the memory has to learn from it. */
import { backoffCeilingMs } from '../../shared/backoff.ts'
import type { Clock } from '../../shared/clock.ts'
import { InvariantError, messageOf, NotFoundError, RubatoError } from '../../shared/errors.ts'
import type { InstanceId } from '../../shared/model/identity.ts'
import type { PortBinding } from '../../shared/model/observation.ts'
import type { Assignment } from '../../shared/protocol/frames.ts'
import type { Runtime } from '../runtime/runtime.ts'
import type { InstanceMemory, RuntimeName } from './instance-memory.ts'
import { failurePatch } from './plan-failure.ts'
import type { ReconcileLimits, Step } from './plan-reconcile.ts'

/** Where the main container of an instance is reached. */
export interface IngressTarget {
  readonly address: string
  readonly portMap: Readonly<Record<number, number>>
}

/** What stands around a running instance: gateway and registrar. Each may be repeated; a rejection is tried again later. */
export interface ReconcileHooks {
  /** A container of it is about to be started; a rejection keeps it from that. */
  onStart(instance: InstanceId, runtime: RuntimeName, id: string, assignment: Assignment): Promise<void>
  /** It runs and is healthy: open (or move) the way in. Called before readiness is said, and again after a restart that moved it. */
  onReady(instance: InstanceId, target: IngressTarget, assignment: Assignment): Promise<readonly PortBinding[]>
  /** Take it out of catalog and routes; the way in stays open for what is under way. */
  onWithdraw(instance: InstanceId): Promise<void>
  /** Requests and connections under way. */
  inFlight(instance: InstanceId): number
  /** Its containers are gone (or ended for good): close the way in and forget it. */
  onGone(instance: InstanceId): Promise<void>
}

export interface StepDeps {
  readonly clock: Clock
  readonly hooks: ReconcileHooks
  readonly runtimeNamed: (name: RuntimeName) => Runtime | undefined
  readonly extra: (assignment: Assignment) => {
    readonly environment: Readonly<Record<string, string>>
    readonly hosts: readonly string[]
  }
  readonly limits: ReconcileLimits
}

/** First wait after a step that failed; doubles up to the cap of restarts. */
const STEP_BACKOFF_MS = 500

/** Never rejects: a failure becomes a patch with its reason and a wait. */
export async function runStep(
  deps: StepDeps,
  step: Step,
  assignment: Assignment | null,
  memory: InstanceMemory,
  signal: AbortSignal,
): Promise<Partial<InstanceMemory>> {
  try {
    return { stepFailures: 0, ...(await attempt(deps, step, assignment, memory, signal)) }
  } catch (error) {
    return patchAfterFailure(deps, step, assignment, memory, error)
  }
}

async function attempt(
  deps: StepDeps,
  step: Step,
  assignment: Assignment | null,
  memory: InstanceMemory,
  signal: AbortSignal,
): Promise<Partial<InstanceMemory>> {
  switch (step.kind) {
    case 'lookForImage': {
      const policy = specOfImage(assignment, step.image)?.pullPolicy ?? 'missing'
      const here = policy === 'always' ? false : await runtimeOf(deps, step.runtime).hasImage(step.image)
      if (!here && policy === 'never')
        throw new NotFoundError(`image ${step.image} is not on this node and its pull_policy is never`)
      return { images: { ...memory.images, [step.image]: here ? 'present' : 'absent' } }
    }
    case 'pull': {
      const spec = specOfImage(assignment, step.image)
      const platform = spec?.platform
      // Another instance may have pulled it while this one waited for its turn.
      if (spec?.pullPolicy !== 'always' && (await runtimeOf(deps, step.runtime).hasImage(step.image)))
        return { images: { ...memory.images, [step.image]: 'present' } }
      const auth = assignment?.registryAuth
      await runtimeOf(deps, step.runtime).pull(
        step.image,
        { ...(auth ? { auth } : {}), ...(platform ? { platform } : {}) },
        signal,
      )
      return { images: { ...memory.images, [step.image]: 'present' } }
    }
    case 'create': {
      const spec = assignment?.unit.containers.find((item) => item.name === step.container)
      if (assignment === null || spec === undefined) return {}
      const extra = deps.extra(assignment)
      await runtimeOf(deps, step.runtime).create({
        instance: step.instance,
        specHash: assignment.specHash,
        spec,
        unit: assignment.unit,
        ports: assignment.unit.ports,
        sharesNetworkOf: step.sharesNetworkOf,
        extraEnvironment: extra.environment,
        extraHosts: extra.hosts,
      })
      return {}
    }
    case 'start':
      if (assignment !== null) await deps.hooks.onStart(step.instance, step.runtime, step.id, assignment)
      await runtimeOf(deps, step.runtime).start(step.id)
      return {}
    case 'stop':
      await runtimeOf(deps, step.runtime).stop(step.id, step.graceMs)
      return {}
    case 'remove':
      await runtimeOf(deps, step.runtime).remove(step.id)
      return {}
    case 'open': {
      if (assignment === null || step.main.address === null) return {}
      const target = { address: step.main.address, portMap: step.main.portMap }
      const ports = await deps.hooks.onReady(step.instance, target, assignment)
      return { target: step.target, ports, withdrawn: false }
    }
    case 'withdraw':
      await deps.hooks.onWithdraw(step.instance)
      return { withdrawn: true }
    case 'clear':
      await deps.hooks.onGone(step.instance)
      return { cleared: true, target: null }
  }
}

function patchAfterFailure(
  deps: StepDeps,
  step: Step,
  assignment: Assignment | null,
  memory: InstanceMemory,
  error: unknown,
): Partial<InstanceMemory> {
  const nowMs = deps.clock.monotonicMs()
  const text = `${WHAT[step.kind]} failed: ${messageOf(error)}`
  const waits = {
    stepFailures: memory.stepFailures + 1,
    notBeforeMs: nowMs + backoffCeilingMs(memory.stepFailures, { baseMs: STEP_BACKOFF_MS, capMs: deps.limits.backoffCapMs }),
    message: text,
  }
  const code = error instanceof RubatoError ? error.code : null
  if (step.kind !== 'create' && step.kind !== 'start') return waits
  // Trying again cannot help: the specification itself is refused.
  if (code === 'input-invalid' && step.kind === 'create') return { phase: 'failed', message: text }
  // The image went between the look and the use.
  if (code === 'not-found') return { ...waits, images: {}, recreate: step.kind === 'start' }
  const policy = assignment?.unit.containers[0]?.restart
  const another = code === 'conflict' || (code === 'retryable' && step.kind === 'create')
  if (code === 'unavailable' || another || policy === undefined) return waits
  if (policy.condition === 'none') return { phase: 'failed', message: text }
  return { ...failurePatch(memory, text, 0, memory.condemned, policy, deps.limits.backoffCapMs, nowMs), recreate: true }
}

const WHAT = {
  lookForImage: 'looking for the image',
  pull: 'pulling the image',
  create: 'creating the container',
  start: 'starting the container',
  stop: 'stopping the container',
  remove: 'removing the container',
  open: 'opening its port',
  withdraw: 'taking it out of service',
  clear: 'closing its port',
} as const satisfies Record<Step['kind'], string>

function specOfImage(assignment: Assignment | null, image: string) {
  return assignment?.unit.containers.find((item) => item.image === image)
}

function runtimeOf(deps: StepDeps, name: RuntimeName): Runtime {
  const runtime = deps.runtimeNamed(name)
  if (runtime === undefined) throw new InvariantError(`no ${name} runtime here`)
  return runtime
}
