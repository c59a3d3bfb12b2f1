/** The command line against the API in process: what it prints, what it asks, how it exits. */
import type { CliIo, ReadAppRequest, ReadAppResult } from '../../coordinator/cli/io.ts'
import { runCli } from '../../coordinator/cli/run-cli.ts'
import type { OperatorRole } from '../../shared/model/access.ts'
import type { ApiBed } from './api-bed.ts'
import { anAppSpec } from './specs.ts'

export interface CliRun {
  readonly exitCode: number
  readonly out: string
  readonly err: string
}

export interface CliBed {
  /** Files by absolute path: text and permission bits. */
  readonly disk: Map<string, { readonly text: string; readonly mode: number }>
  env: Record<string, string | undefined>
  columns: number | null
  /** Lever: what an app file reads as. */
  readApp: (request: ReadAppRequest) => Promise<ReadAppResult>
  /** Lever: answers instead of the API. */
  fetch: (url: string, init?: RequestInit) => Promise<Response>
  readonly abort: AbortController
  run(...argv: string[]): Promise<CliRun>
  /** Starts without waiting; `out()` is what was printed so far. */
  start(...argv: string[]): { readonly done: Promise<CliRun>; readonly out: () => string }
}

export function cliBed(api: Pick<ApiBed, 'api' | 'tokens' | 'clock'>, role: OperatorRole = 'admin'): CliBed {
  const bed: CliBed = {
    disk: new Map(),
    env: { RUBATO_URL: 'http://127.0.0.1:7600', RUBATO_TOKEN: api.tokens[role] },
    columns: 80,
    readApp: async () => ({ spec: anAppSpec(), source: 'services: {}', warnings: [] }),
    fetch: async (url, init) => api.api.request(url, init),
    abort: new AbortController(),
    run: (...argv) => bed.start(...argv).done,
    start(...argv) {
      let out = ''
      let err = ''
      const io: CliIo = {
        out(text) {
          out += text
        },
        err(text) {
          err += text
        },
        env: bed.env,
        cwd: '/here',
        home: '/home/me',
        stdoutIsTty: false,
        stderrIsTty: false,
        columns: bed.columns,
        rows: null,
        clock: api.clock,
        readText: async (path) => bed.disk.get(path)?.text ?? null,
        modeOf: async (path) => bed.disk.get(path)?.mode ?? null,
        sizeOf: async (path) => bed.disk.get(path)?.text.length ?? null,
        writeText: async (path, text) => void bed.disk.set(path, { text, mode: 0o644 }),
        signal: bed.abort.signal,
        fetchWith: () => (url, init) => bed.fetch(url, init),
        readApp: (request) => bed.readApp(request),
        runCoordinator: async (given) => {
          out += `coordinator ${given.join(' ')}\n`
          return 0
        },
        probe: {
          dockerVersion: async () => ({ ok: true, text: 'engine 20.10' }),
          portIsFree: async (port) => port !== 7600,
        },
      }
      const done = runCli(argv, io).then((exitCode) => ({ exitCode, out, err }))
      return { done, out: () => out }
    },
  }
  return bed
}
