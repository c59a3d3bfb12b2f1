/** Processes as a dependency of providers: commands that run to their end, and agents that outlive this process. */
export interface CommandResult {
  /** null: killed by a signal, or never started. */
  readonly exitCode: number | null
  readonly stdout: string
  readonly stderr: string
  readonly timedOut: boolean
  /** Output went past the bound and was cut. */
  readonly truncated: boolean
  /** Why it could not be started at all; null when it was. */
  readonly startError: string | null
}

export interface RunCommand {
  readonly argv: readonly string[]
  readonly stdin: string
  readonly timeoutMs: number
  /** Of stdout and of stderr each. */
  readonly maxOutputBytes: number
  readonly signal?: AbortSignal
}

export interface Processes {
  /** Runs a command to its end, with this process's environment; ends its whole group on time-out and abort. Never rejects. */
  run(command: RunCommand): Promise<CommandResult>
  /** Starts a process of its own session that outlives us, output appended to `logPath`. Resolves with its id. Throws RetryableError. */
  startDetached(argv: readonly string[], logPath: string): Promise<number>
  /** All processes that run now, with their arguments; those that are not ours to see are left out. */
  running(): Promise<readonly { readonly pid: number; readonly argv: readonly string[] }[]>
  /** False when there is no such process. */
  signal(pid: number, signal: 'SIGTERM' | 'SIGKILL'): boolean
}
