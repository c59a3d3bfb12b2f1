/**
 * A real coordinator process for tests and benchmarks: its own state directory, any settings, killed and started again at will.
 * Talks to it as users do: HTTP API and command line.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { Agent as HttpAgent, request as httpRequest } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { join } from 'node:path'
import { until } from './hosts.ts'

const ROOT = join(import.meta.dirname, '..', '..')

export interface CoordinatorProcess {
  readonly url: string
  readonly token: string
  readonly caPem: string | null
  readonly dir: string
  readonly log: string
  /** GET, decoded. Throws with the answer's text on a status of 400 and above. */
  get<T>(path: string): Promise<T>
  send<T>(method: string, path: string, body?: unknown): Promise<T>
  /** Runs the command line against it; resolves with output and exit code whatever it is. */
  cli(args: readonly string[]): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }>
  /** kill -9; the state stays. */
  kill(): Promise<void>
  start(): Promise<void>
  /** Asks it to stop, and waits. */
  stop(): Promise<void>
  readonly pid: number
}

export interface CoordinatorOptions {
  readonly dir: string
  readonly host: string
  readonly port: number
  readonly catalogPort: number
  readonly dnsPort: number
  /** Settings beside the listeners, as in the config file. */
  readonly settings?: Readonly<Record<string, unknown>>
  /** Of its process, beside what this one has. */
  readonly environment?: Readonly<Record<string, string>>
}

export async function startCoordinator(options: CoordinatorOptions): Promise<CoordinatorProcess> {
  const { dir, host, port } = options
  mkdirSync(dir, { recursive: true })
  const stateDir = join(dir, 'state')
  const configFile = join(dir, 'rubato.json')
  const log = join(dir, 'coordinator.log')
  const plain = host.startsWith('127.')
  const url = `${plain ? 'http' : 'https'}://${host}:${port}`
  writeFileSync(
    configFile,
    JSON.stringify(
      {
        stateDir,
        listen: `${host}:${port}`,
        catalogListen: `${host}:${options.catalogPort}`,
        dnsListen: `${host}:${options.dnsPort}`,
        ...options.settings,
      },
      null,
      2,
    ),
  )
  let child: ChildProcess | null = null
  let caPem: string | null = null
  let agent: HttpAgent | HttpsAgent = new HttpAgent({ keepAlive: true })

  const call = (method: string, path: string, body?: unknown, token?: string) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const payload = body === undefined ? null : JSON.stringify(body)
      const outgoing = (plain ? httpRequest : httpsRequest)(
        `${url}${path}`,
        {
          method,
          agent,
          timeout: 20_000,
          headers: {
            ...(token ? { authorization: `Bearer ${token}` } : {}),
            ...(payload === null ? {} : { 'content-type': 'application/json', 'content-length': Buffer.byteLength(payload) }),
          },
          ...(plain ? {} : caPem === null ? { rejectUnauthorized: false } : { ca: caPem }),
        },
        (response) => {
          let text = ''
          response.setEncoding('utf8')
          response.on('data', (chunk: string) => {
            text += chunk
          })
          response.on('end', () => resolve({ status: response.statusCode ?? 0, text }))
          response.on('error', reject)
        },
      )
      outgoing.on('timeout', () => outgoing.destroy(new Error(`${method} ${path}: no answer in 20 s`)))
      outgoing.on('error', reject)
      outgoing.end(payload ?? undefined)
    })

  const coordinator: CoordinatorProcess & { token: string } = {
    url,
    token: '',
    dir,
    log,
    get caPem() {
      return caPem
    },
    get pid() {
      return child?.pid ?? 0
    },
    get: (path) => coordinator.send('GET', path),
    async send<T>(method: string, path: string, body?: unknown) {
      const { status, text } = await call(method, path, body, coordinator.token)
      if (status >= 400) throw new Error(`${method} ${path}: ${status} ${text.slice(0, 500)}`)
      return (text === '' ? null : JSON.parse(text)) as T
    },
    cli(args) {
      return new Promise((resolve, reject) => {
        const run = spawn(process.execPath, [join(ROOT, 'coordinator', 'main.ts'), ...args], {
          stdio: ['ignore', 'pipe', 'pipe'],
          env: {
            ...process.env,
            RUBATO_URL: url,
            RUBATO_TOKEN: coordinator.token,
            ...(caPem === null ? {} : { RUBATO_CA: join(dir, 'ca.pem') }),
          },
        })
        let stdout = ''
        let stderr = ''
        run.stdout.on('data', (chunk: Buffer) => {
          stdout += chunk
        })
        run.stderr.on('data', (chunk: Buffer) => {
          stderr += chunk
        })
        run.on('error', reject)
        run.on('close', (code) => resolve({ code: code ?? -1, stdout, stderr }))
      })
    },
    async kill() {
      const victim = child
      child = null
      victim?.kill('SIGKILL')
      await until(() => !victim || victim.exitCode !== null || victim.signalCode !== null, 'the coordinator to die')
    },
    async start() {
      const out = openSync(log, 'a')
      child = spawn(process.execPath, [join(ROOT, 'coordinator', 'main.ts'), 'coordinator', '--config', configFile], {
        stdio: ['ignore', out, out],
        env: { ...process.env, ...options.environment },
      })
      closeSync(out)
      const started = child
      await until(async () => {
        if (started.exitCode !== null)
          throw new Error(`the coordinator ended with ${started.exitCode}: ${readFileSync(log, 'utf8').slice(-2000)}`)
        try {
          return (await call('GET', '/healthz')).status === 200
        } catch {
          return false
        }
      }, `the coordinator to answer (see ${log})`)
      if (!plain && caPem === null) {
        caPem = (await call('GET', '/v1/ca')).text
        writeFileSync(join(dir, 'ca.pem'), caPem)
        agent = new HttpsAgent({ keepAlive: true })
      }
      const tokenFile = join(stateDir, 'admin.token')
      if (existsSync(tokenFile)) coordinator.token = readFileSync(tokenFile, 'utf8').trim()
    },
    async stop() {
      const running = child
      child = null
      agent.destroy()
      if (!running || running.exitCode !== null || running.signalCode !== null) return
      running.kill('SIGTERM')
      await until(() => running.exitCode !== null || running.signalCode !== null, 'the coordinator to stop', 30_000)
    },
  }
  if (!plain) agent = new HttpsAgent({ keepAlive: true })
  await coordinator.start()
  return coordinator
}
