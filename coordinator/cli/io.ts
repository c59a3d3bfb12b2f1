/** What the command line needs of the world; main.ts gives the real one, tests give the API in process. */
import type { Clock } from '../../shared/clock.ts'
import type { AppSpec, AppWarning } from '../../shared/model/app.ts'

export type Fetch = (url: string, init?: RequestInit) => Promise<Response>

export interface CliIo {
  /** Writes text as it is; no newline is added. */
  out(text: string): void
  err(text: string): void
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly home: string
  readonly stdoutIsTty: boolean
  readonly stderrIsTty: boolean
  /** Width of the terminal; null when there is none. */
  readonly columns: number | null
  readonly rows: number | null
  readonly clock: Clock
  /** The file's text, or null when there is none. */
  readText(path: string): Promise<string | null>
  /** Permission bits of a file, or null when there is none. */
  modeOf(path: string): Promise<number | null>
  /** Bytes of a file, or null when there is none. */
  sizeOf(path: string): Promise<number | null>
  /** Makes or replaces a file. */
  writeText(path: string, text: string): Promise<void>
  /** Raised by Ctrl-C. */
  readonly signal: AbortSignal
  /** `caPem`: trust only this authority; null: plain HTTP, or the system's authorities. */
  fetchWith(caPem: string | null): Fetch
  /** Reads an app file and all that it refers to. Throws `InputError` with every fault (file, line, column). */
  readApp(request: ReadAppRequest): Promise<ReadAppResult>
  /** Runs `rubato coordinator` until it ends. */
  runCoordinator(argv: readonly string[]): Promise<number>
  /** Local checks of `doctor`. */
  probe: {
    /** The Docker engine's version, or why it does not answer. */
    dockerVersion(): Promise<{ readonly ok: boolean; readonly text: string }>
    /** Whether something listens on or the port can be bound on loopback. */
    portIsFree(port: number): Promise<boolean>
  }
}

export interface ReadAppRequest {
  /** Absolute path. */
  readonly file: string
  /** Files laid over the first one, in order, absolute. */
  readonly overrides?: readonly string[]
  /** Name of the app; null: the file's `name`, else its directory's name. */
  readonly name: string | null
  readonly profiles: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
}

export interface ReadAppResult {
  readonly spec: AppSpec
  readonly source: string
  readonly warnings: readonly AppWarning[]
}

/** Documented in docs/cli.md; scripts rely on them. */
export const EXIT = {
  ok: 0,
  /** It was tried and failed (a rollout that was rolled back, a fault of the coordinator). */
  failed: 1,
  /** Bad usage or input; nothing was changed. */
  refused: 2,
  notFound: 3,
  unauthorized: 4,
  unreachable: 5,
  /** Somebody else changed it meanwhile. */
  conflict: 6,
  /** Still going on when the time was over. */
  timedOut: 7,
  interrupted: 130,
} as const

/** Ends the command with that code after printing the message and the next step. */
export class CliError extends Error {
  readonly exitCode: number
  readonly hint: string | null
  constructor(exitCode: number, message: string, hint: string | null = null) {
    super(message)
    this.name = 'CliError'
    this.exitCode = exitCode
    this.hint = hint
  }
}
