/**
 * Machines that are agents on this very host: each a process of its own session with a declared slice of the host, its own
 * state directory and its own loopback address. They outlive the coordinator; its next start finds them by their record files,
 * and the processes by the state directory among their arguments, so that a crash between start and record loses none.
 *
 * A machine whose agent died is started again by the next `list`, as an init system would.
 */
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { settingsOfUserData } from '../../../installer/cloud-init.ts'
import { type Clock, sleep } from '../../../shared/clock.ts'
import { CapacityError, NotFoundError, RetryableError, RubatoError } from '../../../shared/errors.ts'
import type { Files } from '../../../shared/files.ts'
import type { Logger } from '../../../shared/logger.ts'
import { createTurns } from '../turns.ts'
import type { Processes } from '../processes.ts'
import type { CloudMachine, CreateMachine, Offering, Provider } from '../provider.ts'

export interface LocalProviderDeps {
  readonly name: string
  /** Absolute; machines live under `<stateDir>/local`. */
  readonly stateDir: string
  /** Starts an agent; `--config FILE --state-dir DIR` or `destroy --state-dir DIR` follows. */
  readonly agentCommand: readonly string[]
  readonly offerings: readonly Offering[]
  readonly engine: 'docker' | 'process' | 'auto'
  /** null: the agent's default. */
  readonly dockerSocket: string | null
  readonly processes: Processes
  readonly files: Files
  /** Removes a directory with everything in it; absent is fine. */
  readonly removeTree: (path: string) => Promise<void>
  readonly clock: Clock
  readonly logger: Logger
}

interface LocalRecord {
  readonly id: string
  readonly name: string
  readonly tags: Readonly<Record<string, string>>
  readonly address: string
  readonly createdAtMs: number
  readonly deleting: boolean
}

const TERM_WAIT_MS = 10_000
const KILL_WAIT_MS = 5_000
const DESTROY_TIMEOUT_MS = 120_000
/** Starts of a dying agent: not more often than this. */
const RESTART_EVERY_MS = 5_000
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9._-]{0,120}$/

export function createLocalProvider(deps: LocalProviderDeps): Provider {
  const { files, processes, clock, logger, offerings } = deps
  const root = join(deps.stateDir, 'local')
  const recordPath = (name: string) => join(root, `${name}.json`)
  const homeOf = (name: string) => join(root, name)
  const stateOf = (name: string) => join(root, name, 'state')
  const configOf = (name: string) => join(root, name, 'agent.yaml')
  /** One change of a machine at a time; and one choice of an address at a time. */
  const inTurn = createTurns()
  const startedAtMs = new Map<string, number>()

  const readRecord = async (name: string): Promise<LocalRecord | null | 'damaged'> => {
    const text = await files.read(recordPath(name))
    if (text === null) return null
    try {
      const record = JSON.parse(text) as LocalRecord
      return record.name === name && typeof record.address === 'string' ? record : 'damaged'
    } catch {
      return 'damaged'
    }
  }
  const readAll = async () => {
    const names = (await files.list(root)).filter((file) => file.endsWith('.json')).map((file) => file.slice(0, -'.json'.length))
    const records: LocalRecord[] = []
    let complete = true
    for (const name of names) {
      const record = await readRecord(name)
      if (record === 'damaged') complete = false
      else if (record) records.push(record)
    }
    return { records, complete }
  }
  const writeRecord = (record: LocalRecord) => files.write(recordPath(record.name), `${JSON.stringify(record, null, 2)}\n`, 0o600)
  const pidsOf = async (name: string) =>
    (await processes.running()).filter(({ argv }) => runs(argv, stateOf(name))).map(({ pid }) => pid)

  const startAgent = async (name: string) => {
    if ((await pidsOf(name)).length > 0) return
    startedAtMs.set(name, clock.monotonicMs())
    const argv = [...deps.agentCommand, '--config', configOf(name), '--state-dir', stateOf(name)]
    const pid = await processes.startDetached(argv, join(homeOf(name), 'agent.log'))
    logger.info('local agent started', { machine: name, pid })
  }
  const toMachine = (record: LocalRecord, isRunning: boolean): CloudMachine => ({
    id: record.id,
    name: record.name,
    state: record.deleting ? 'stopping' : isRunning ? 'running' : 'starting',
    address: record.address,
    createdAtMs: record.createdAtMs,
  })

  const stopAgent = async (name: string, signal: AbortSignal) => {
    for (const [kind, waitMs] of [
      ['SIGTERM', TERM_WAIT_MS],
      ['SIGKILL', KILL_WAIT_MS],
    ] as const) {
      const pids = await pidsOf(name)
      if (pids.length === 0) return
      for (const pid of pids) processes.signal(pid, kind)
      const endMs = clock.monotonicMs() + waitMs
      while (clock.monotonicMs() < endMs) {
        if ((await pidsOf(name)).length === 0) return
        await sleep(clock, 100, signal)
      }
    }
    if ((await pidsOf(name)).length > 0) throw new RetryableError(`the agent of ${name} does not end`)
  }

  return {
    name: deps.name,
    create: (request, signal) =>
      inTurn(`machine ${request.name}`, async () => {
        signal.throwIfAborted()
        if (!NAME.test(request.name)) throw new RubatoError('input-invalid', `${request.name} is no name for a machine`)
        offeringOf(offerings, request.offering)
        const known = await readRecord(request.name)
        if (known === 'damaged') throw new RetryableError(`the record of ${request.name} is damaged`)
        if (known?.deleting) throw new RetryableError(`${request.name} is being deleted`)
        // The record first: whatever happens next, this machine is listed and can be deleted.
        const record = known ?? (await inTurn('address', () => newRecord(request)))
        if ((await files.read(configOf(record.name))) === null) await prepare(deps, record, request, homeOf(record.name))
        await startAgent(record.name)
        return toMachine(record, true)
      }),
    delete: ({ name }, signal) =>
      inTurn(`machine ${name}`, async () => {
        const record = NAME.test(name) ? await readRecord(name) : null
        if (record === null) throw new NotFoundError(`there is no local machine ${name}`)
        if (record === 'damaged') throw new RetryableError(`the record of ${name} is damaged`)
        if (!record.deleting) await writeRecord({ ...record, deleting: true })
        await stopAgent(name, signal)
        const result = await processes.run({
          argv: [...deps.agentCommand, 'destroy', '--state-dir', stateOf(name)],
          stdin: '',
          timeoutMs: DESTROY_TIMEOUT_MS,
          maxOutputBytes: 65_536,
          signal,
        })
        signal.throwIfAborted()
        if (result.exitCode !== 0)
          throw new RetryableError(`what ${name} ran could not be removed: ${result.startError ?? result.stderr.slice(0, 300)}`)
        await deps.removeTree(homeOf(name))
        await files.remove(recordPath(name))
        startedAtMs.delete(name)
        logger.info('local machine deleted', { machine: name })
      }),
    async list(tags, signal) {
      const { records, complete } = await readAll()
      const running = await processes.running()
      signal.throwIfAborted()
      const machines: CloudMachine[] = []
      for (const record of records) {
        if (!Object.entries(tags).every(([key, value]) => record.tags[key] === value)) continue
        const machine = toMachine(
          record,
          running.some(({ argv }) => runs(argv, stateOf(record.name))),
        )
        machines.push(machine)
        const lastStartMs = startedAtMs.get(record.name)
        const mayStart = lastStartMs === undefined || clock.monotonicMs() - lastStartMs >= RESTART_EVERY_MS
        if (machine.state === 'starting' && mayStart) await inTurn(`machine ${record.name}`, () => revive(record.name))
      }
      return { complete, machines }
    },
    offerings: async () => offerings,
  }

  async function newRecord(request: CreateMachine): Promise<LocalRecord> {
    const { records } = await readAll()
    const record: LocalRecord = {
      id: `local-${request.name}`,
      name: request.name,
      tags: request.tags,
      address: chooseAddress(root, new Set(records.map((other) => other.address))),
      createdAtMs: clock.now(),
      deleting: false,
    }
    await writeRecord(record)
    return record
  }

  /** Starts the agent of a machine again, if the machine is still wanted and was prepared. */
  async function revive(name: string): Promise<void> {
    const record = await readRecord(name)
    if (record === null || record === 'damaged' || record.deleting) return
    if ((await files.read(configOf(name))) === null || (await pidsOf(name)).length > 0) return
    logger.warn('local agent had ended and is started again', { machine: name })
    await startAgent(name)
  }
}

/** Writes what the agent of a new machine reads: its configuration, and the join token in a file of its own. */
async function prepare(deps: LocalProviderDeps, record: LocalRecord, request: CreateMachine, home: string): Promise<void> {
  const settings = settingsOfUserData(request.userData)
  if (!settings) throw new RubatoError('input-invalid', 'the user data names no coordinator and no join token')
  const { capacity } = offeringOf(deps.offerings, request.offering)
  const tokenPath = join(home, 'join.token')
  await deps.files.write(tokenPath, `${settings.token}\n`, 0o600)
  const config = {
    urls: settings.urls,
    tokenFile: tokenPath,
    stateDir: join(home, 'state'),
    hostname: record.name.slice(0, 63),
    address: record.address,
    bindAddress: record.address,
    labels: settings.labels,
    engine: request.settings.engine ?? deps.engine,
    ...(deps.dockerSocket === null ? {} : { dockerSocket: deps.dockerSocket }),
    // Several of these share one engine; exactly one agent per engine may register what Rubato did not start.
    registerForeign: request.settings.registerForeign === true,
    capacity: {
      cpus: String(capacity.cpuMillis / 1000),
      memory: capacity.memoryBytes,
      disk: capacity.diskBytes,
      slots: capacity.slots,
    },
  }
  // Last of all: a machine with this file is a prepared one.
  await deps.files.write(join(home, 'agent.yaml'), stringify(config), 0o600)
}

/** Whether these are the arguments of an agent with this state directory. */
function runs(argv: readonly string[], stateDir: string): boolean {
  const flag = argv.indexOf('--state-dir')
  return flag >= 0 && argv[flag + 1] === stateDir
}

function offeringOf(offerings: readonly Offering[], name: string): Offering {
  const offering = offerings.find((candidate) => candidate.name === name)
  if (!offering)
    throw new CapacityError(`this host offers no ${name}; it offers ${offerings.map((o) => o.name).join(', ') || 'nothing'}`)
  return offering
}

/** A free address of 127.77.0.0/16. Coordinators on one host start at different places, by their directory. */
function chooseAddress(root: string, used: ReadonlySet<string>): string {
  const PLACES = 256 * 254
  const start = createHash('sha256').update(root).digest().readUInt32BE(0) % PLACES
  for (let step = 0; step < PLACES; step += 1) {
    const place = (start + step) % PLACES
    const address = `127.77.${Math.floor(place / 254)}.${(place % 254) + 1}`
    if (!used.has(address)) return address
  }
  throw new CapacityError('all addresses of local machines are taken')
}
