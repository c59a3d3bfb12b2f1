/** The real world for the command line. Constructed by main.ts only. */
import { readFile, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { homedir } from 'node:os'
import { request } from 'node:http'
import { systemClock } from '../../shared/clock.ts'
import { messageOf } from '../../shared/errors.ts'
import type { CliIo, Fetch, ReadAppRequest, ReadAppResult } from './io.ts'

export interface SystemIoOptions {
  /** Raised when the user interrupts. */
  readonly signal: AbortSignal
  readApp(request: ReadAppRequest): Promise<ReadAppResult>
  runCoordinator(argv: readonly string[]): Promise<number>
}

const DOCKER_SOCKET = '/var/run/docker.sock'
const PROBE_TIMEOUT_MS = 3000
const CONNECT_TIMEOUT_MS = 5000

export function systemIo(options: SystemIoOptions): CliIo {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    env: process.env,
    cwd: process.cwd(),
    home: homedir(),
    stdoutIsTty: process.stdout.isTTY === true,
    stderrIsTty: process.stderr.isTTY === true,
    get columns() {
      return process.stdout.isTTY ? process.stdout.columns : null
    },
    get rows() {
      return process.stdout.isTTY ? process.stdout.rows : null
    },
    clock: systemClock(),
    readText: (path) => orNull(readFile(path, 'utf8')),
    modeOf: async (path) => (await orNull(stat(path)))?.mode ?? null,
    sizeOf: async (path) => (await orNull(stat(path)))?.size ?? null,
    writeText: (path, text) => writeFile(path, text),
    signal: options.signal,
    fetchWith,
    readApp: options.readApp,
    runCoordinator: options.runCoordinator,
    probe: { dockerVersion, portIsFree },
  }
}

async function orNull<T>(reading: Promise<T>): Promise<T | null> {
  try {
    return await reading
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw error
  }
}

/** One agent per authority: connections are kept, nothing but that authority is trusted. Streams may be silent for long. */
function fetchWith(caPem: string | null): Fetch {
  // Loaded for verbs that ask a coordinator: not all do.
  const opened = import('undici').then(({ Agent, fetch }) => {
    const connect = { timeout: CONNECT_TIMEOUT_MS, ...(caPem === null ? {} : { ca: caPem }) }
    const dispatcher = new Agent({ bodyTimeout: 0, headersTimeout: 120_000, connect })
    return (url: string, init?: RequestInit) => fetch(url, { ...(init as object), dispatcher } as Parameters<typeof fetch>[1])
  })
  return async (url, init) => (await (await opened)(url, init)) as unknown as Response
}

function dockerVersion(): Promise<{ ok: boolean; text: string }> {
  return new Promise((resolve) => {
    const asked = request({ socketPath: DOCKER_SOCKET, path: '/version', timeout: PROBE_TIMEOUT_MS }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        if (text.length < 100_000) text += chunk
      })
      response.on('end', () => {
        try {
          resolve({ ok: true, text: `engine ${(JSON.parse(text) as { Version?: string }).Version ?? '?'}` })
        } catch (error) {
          resolve({ ok: false, text: `the engine's answer cannot be read: ${messageOf(error)}` })
        }
      })
    })
    asked.on('timeout', () => asked.destroy(new Error(`no answer within ${PROBE_TIMEOUT_MS / 1000} s`)))
    asked.on('error', (error) => resolve({ ok: false, text: `no engine at ${DOCKER_SOCKET}: ${messageOf(error)}` }))
    asked.end()
  })
}

function portIsFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}
