/**
 * A cloud behind a command of the user's own: `CMD create|delete|list`, JSON on stdin and stdout, a message for people on
 * stderr. docs/configuration.md gives the contract. What we cannot understand is never taken for a failure or an absence: the
 * outcome is unknown, and the call is repeated.
 */
import { z } from 'zod'
import { CapacityError, NotFoundError, QuotaError, RetryableError, RubatoError } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import { createTurns } from '../turns.ts'
import type { CommandResult, Processes } from '../processes.ts'
import type { CloudMachine, CloudMachineState, CreateMachine, Offering, Provider } from '../provider.ts'

export interface ExecProviderDeps {
  readonly name: string
  /** Program and first arguments; the verb follows. */
  readonly command: readonly string[]
  readonly offerings: readonly Offering[]
  readonly processes: Pick<Processes, 'run'>
  readonly logger: Logger
  readonly timeoutsMs: { readonly create: number; readonly delete: number; readonly list: number }
}

const EXIT = { done: 0, noCapacity: 10, quota: 11, notFound: 12, retry: 13 } as const
const MAX_OUTPUT_BYTES = 8 * 2 ** 20
const STATES: readonly CloudMachineState[] = ['starting', 'running', 'stopping']

const machineSchema = z.object({
  id: z.string().min(1).max(300),
  name: z.string().min(1).max(300),
  state: z.string(),
  address: z.string().max(253).nullish(),
  createdAt: z.union([z.string(), z.number()]).nullish(),
  interruptionAt: z.union([z.string(), z.number()]).nullish(),
  tags: z.record(z.string(), z.string()).nullish(),
})
const listSchema = z.object({ complete: z.boolean(), machines: z.array(z.unknown()).max(100_000) })
const retrySchema = z.object({ retryAfterMs: z.number().min(0).max(86_400_000) })

export function createExecProvider(deps: ExecProviderDeps): Provider {
  const { name, command, processes, logger, timeoutsMs } = deps

  /** Runs one verb; resolves with its output for exit 0 and throws the error that any other exit stands for. */
  const call = async (
    verb: 'create' | 'delete' | 'list',
    input: unknown,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<unknown> => {
    signal.throwIfAborted()
    const result = await processes.run({
      argv: [...command, verb],
      stdin: JSON.stringify(input),
      timeoutMs,
      maxOutputBytes: MAX_OUTPUT_BYTES,
      signal,
    })
    signal.throwIfAborted()
    const error = errorOf(`${name} ${verb}`, result)
    if (error) throw error
    if (result.stderr !== '')
      logger.debug('the provider command said something', { provider: name, verb, stderr: printable(result.stderr) })
    const output = parseJson(result.stdout)
    if (output === undefined)
      throw new RetryableError(
        `${name} ${verb}: the output is no JSON (${printable(result.stdout).slice(0, 100)}); the outcome is unknown`,
      )
    return output
  }

  /** Many a command looks first and creates then: two calls for one machine at a time would make two. */
  const inTurn = createTurns()
  const create: Provider['create'] = async (request, signal) => {
    const output = await call('create', createInput(request), timeoutsMs.create, signal)
    const machine = toMachine(output)
    if (!machine) throw new RetryableError(`${name} create: the output describes no machine; the outcome is unknown`)
    if (machine.state === 'unknown')
      throw new RetryableError(`${name} create: the state is none of ${STATES.join(', ')}; the outcome is unknown`)
    if (machine.name !== request.name)
      throw new RetryableError(
        `${name} create: asked for ${request.name}, it answered about ${machine.name}; the outcome is unknown`,
      )
    return machine
  }

  return {
    name,
    create: (request, signal) => inTurn(request.name, () => create(request, signal)),
    delete: ({ id, name: machineName }, signal) =>
      inTurn(machineName, async () => void (await call('delete', { id, name: machineName }, timeoutsMs.delete, signal))),
    async list(tags, signal) {
      const output = listSchema.safeParse(await call('list', { tags }, timeoutsMs.list, signal))
      if (!output.success) throw new RetryableError(`${name} list: the output is no list of machines; what exists is unknown`)
      let { complete } = output.data
      const machines = new Map<string, CloudMachine>()
      for (const entry of output.data.machines) {
        const machine = toMachine(entry)
        if (!machine) {
          complete = false
          logger.warn('the provider lists something that is no machine', { provider: name })
        } else if (hasTags(entry, tags)) machines.set(machine.id, machine)
      }
      return { complete, machines: [...machines.values()] }
    },
    offerings: async () => deps.offerings,
  }
}

function createInput(request: CreateMachine): Record<string, unknown> {
  const { name, pool, offering, image, zone, userData, tags, settings } = request
  return { name, pool, offering, image, zone, userData, tags, settings }
}

function errorOf(call: string, result: CommandResult): Error | null {
  const said = printable(result.stderr)
  const detail = said === '' ? '' : `: ${said}`
  if (result.startError !== null) return new RubatoError('unavailable', `${call} cannot be started: ${result.startError}`)
  if (result.timedOut) return new RetryableError(`${call} took too long; the outcome is unknown${detail}`)
  if (result.exitCode === null) return new RetryableError(`${call} was killed; the outcome is unknown${detail}`)
  switch (result.exitCode) {
    case EXIT.done:
      return result.truncated
        ? new RetryableError(`${call}: more output than ${MAX_OUTPUT_BYTES} bytes; the outcome is unknown`)
        : null
    case EXIT.noCapacity:
      return new CapacityError(`${call}: no capacity${detail}`)
    case EXIT.quota:
      return new QuotaError(`${call}: the quota is used up${detail}`)
    case EXIT.notFound:
      return new NotFoundError(`${call}: there is no such machine${detail}`)
    case EXIT.retry: {
      const parsed = retrySchema.safeParse(parseJson(result.stdout))
      return new RetryableError(
        `${call}: to be tried again${detail}`,
        parsed.success ? { retryAfterMs: parsed.data.retryAfterMs } : {},
      )
    }
    default:
      return new RubatoError('unavailable', `${call} failed with exit code ${result.exitCode}${detail}`)
  }
}

function toMachine(value: unknown): CloudMachine | null {
  const parsed = machineSchema.safeParse(value)
  if (!parsed.success) return null
  const { id, name, state, address, createdAt, interruptionAt } = parsed.data
  const known = STATES.find((candidate) => candidate === state) ?? 'unknown'
  const interruptionAtMs = noticeMsOf(interruptionAt)
  return {
    id,
    name,
    state: known,
    ...(address ? { address } : {}),
    createdAtMs: epochMsOf(createdAt),
    ...(interruptionAtMs === null ? {} : { interruptionAtMs }),
  }
}

/** null for what is no date. */
function epochMsOf(value: string | number | null | undefined): number | null {
  const ms = typeof value === 'number' ? value : Date.parse(value ?? '')
  return Number.isFinite(ms) ? ms : null
}

/** As `epochMsOf`; 0 and less are how scripts say "none". What cannot be true is for the fleet to judge (plan-notices.ts). */
function noticeMsOf(value: string | number | null | undefined): number | null {
  const ms = epochMsOf(value)
  return ms === null || ms <= 0 ? null : ms
}

/** A machine whose tags are given and are not ours is not ours. Without tags the command has chosen by them itself. */
function hasTags(entry: unknown, tags: Readonly<Record<string, string>>): boolean {
  const given = machineSchema.safeParse(entry).data?.tags
  if (!given) return true
  return Object.entries(tags).every(([key, value]) => given[key] === value)
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined // Callers treat it as "outcome unknown".
  }
}

/** What a command said, short, in one line, and without any credential of ours. */
function printable(text: string): string {
  return text
    .replace(/rbt[a-z]?_[A-Za-z0-9_-]+/g, '(secret)')
    .replace(/[\u0000-\u001f\u007f]+/g, ' ')
    .trim()
    .slice(0, 500)
}
