/** What an instance's container means for a plain process, and the process for the agent: record, environment, user, exit code. Pure. */
import { InputError } from '../../../shared/errors.ts'
import type { CreateContainer, ObservedContainer } from '../runtime.ts'
import type { ProcessRecord } from './process-record.ts'

export interface RecordPlace {
  readonly id: string
  readonly name: string
  readonly clusterId: string
  readonly nodeId: string
  /** Where it runs unless its specification says. */
  readonly workDir: string
  /** Of a sidecar: its main process. It is told where that listens; ports of its own it has none. */
  readonly main: ProcessRecord | undefined
}

/** By this a process is found again whose record does not know its pid yet. */
export const ID_VARIABLE = 'RUBATO_PROCESS_ID'
const SIGNAL_NUMBERS: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
}
const IDENTITY = ['RUBATO_UID', 'RUBATO_GID']

/** Throws InputError for what a plain process cannot have. */
export function recordOf(request: CreateContainer, { id, name, clusterId, nodeId, workDir, main }: RecordPlace): ProcessRecord {
  const { spec } = request
  const argv = [...(spec.entrypoint ?? []), ...(spec.command ?? [])]
  if (argv.length === 0) throw new InputError(`${spec.name} has no command; a process needs one`)
  const mount = spec.mounts[0]
  if (mount)
    throw new InputError(
      `${spec.name} wants the ${mount.kind} mount ${mount.target}; the process runtime has no mounts, use a container engine`,
    )
  const user = /^(\d+)(?::(\d+))?$/.exec(spec.user ?? '0')
  if (spec.user !== undefined && user === null)
    throw new InputError(`${spec.name} runs as ${spec.user}; a process needs a numeric user id`)
  const identity: Record<string, string> = {}
  if (spec.user !== undefined && user?.[1] !== undefined) {
    identity.RUBATO_UID = user[1]
    if (user[2] !== undefined) identity.RUBATO_GID = user[2]
  }
  return {
    version: 1,
    id,
    name,
    cluster: clusterId,
    node: nodeId,
    instance: request.instance,
    container: spec.name,
    specHash: request.specHash,
    argv,
    environment: {
      ...(main === undefined ? {} : portVariables(main)),
      ...withoutIdentity(spec.environment),
      ...request.extraEnvironment,
      ...identity,
    },
    workingDir: spec.workingDir ?? workDir,
    stopSignal: stopSignalOf(spec.stopSignal),
    portMap:
      request.sharesNetworkOf === null ? Object.fromEntries(request.ports.map(({ containerPort }) => [containerPort, 0])) : {},
    files: spec.files.map((file) => ({ path: file.target, mode: file.mode })),
    run: null,
  }
}

/** All that the process finds in its environment, and nothing else. */
export function environmentOf(
  record: ProcessRecord,
  base: Readonly<Record<string, string>>,
  bindAddress: string,
): Record<string, string> {
  const first = Object.values(record.portMap)[0]
  return {
    ...base,
    HOME: record.workingDir,
    ...record.environment,
    ...(first === undefined ? {} : { PORT: String(first) }),
    ...portVariables(record),
    HOST: bindAddress,
    [ID_VARIABLE]: record.id,
  }
}

/** As whom the process runs, and its probes with it. */
export function userOf({ environment }: ProcessRecord): { uid?: number; gid?: number } {
  const { RUBATO_UID: uid, RUBATO_GID: gid } = environment
  return { ...(uid === undefined ? {} : { uid: Number(uid) }), ...(gid === undefined ? {} : { gid: Number(gid) }) }
}

/** As a shell would say it. */
export function exitCodeOf(code: number | null, signal: string | null): number {
  return code ?? 128 + (SIGNAL_NUMBERS[signal ?? ''] ?? 0)
}

export function observedOf(record: ProcessRecord, bindAddress: string): ObservedContainer {
  const { run } = record
  const running = run !== null && !run.ended
  return {
    id: record.id,
    instance: record.instance,
    container: record.container,
    specHash: record.specHash,
    state: run === null ? 'created' : running ? 'running' : 'exited',
    startedAtMs: run?.startedAtMs ?? null,
    exitedAtMs: run?.exitedAtMs ?? null,
    exitCode: run?.exitCode ?? null,
    oomKilled: false,
    address: running ? bindAddress : null,
    portMap: Object.fromEntries(Object.entries(record.portMap).map(([port, moved]) => [Number(port), moved])),
  }
}

/** Only `user` says as whom a process runs, not a variable of the app. */
function withoutIdentity(environment: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !IDENTITY.includes(name)))
}

function portVariables({ portMap }: ProcessRecord): Record<string, string> {
  return Object.fromEntries(Object.entries(portMap).map(([port, moved]) => [`RUBATO_PORT_${port}`, String(moved)]))
}

function stopSignalOf(name: string | undefined): string {
  if (name === undefined) return 'SIGTERM'
  const full = name.toUpperCase().startsWith('SIG') ? name.toUpperCase() : `SIG${name.toUpperCase()}`
  if (!/^SIG[A-Z0-9]{1,8}$/.test(full)) throw new InputError(`${name} is no signal name`)
  return full
}
