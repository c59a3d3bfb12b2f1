/** The test's side of exec-hosts.mjs: a cloud whose machines are hosts of the lab. They get nothing but their user data. */
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import type { Host, Hosts } from './hosts.ts'

export interface LabMachine {
  readonly id: string
  readonly name: string
  readonly host: Host
  readonly pool: string
  readonly account: string
  /** When its creation was first asked for, when it had booted, and when its user data began to run (null before), epoch ms. */
  readonly orderedAtMs: number
  readonly createdAtMs: number
  bootedAtMs: number | null
  deleted: boolean
}

/** How the cloud's command treats those who want a machine of a pool. */
export type Oddity =
  | { readonly kind: 'refuses'; readonly exit: number; readonly message: string }
  | { readonly kind: 'hangs' }
  /** It makes the machine and prints something else. */
  | { readonly kind: 'talks rubbish' }
  /** It makes the machine and exits as if it had not. */
  | { readonly kind: 'fails after success'; readonly exit: number }

/** What the cloud does to its callers; each takes effect with the next call. */
export interface MachineLevers {
  /** By pool. */
  readonly odd: Map<string, Oddity>
  /** The next so many creations are refused with "try again". */
  refuseNext: number
}

/** Where calls can be held: before a machine is made, before that is answered, before its user data runs, before and after its deletion. */
export type Stage = 'asked' | 'made' | 'boot' | 'delete' | 'deleted'

export interface MachineServer {
  /** Program and arguments of a provider's command; accounts see their own machines only. */
  command(account: string): readonly string[]
  /** Every machine there ever was. */
  readonly machines: readonly LabMachine[]
  readonly levers: MachineLevers
  /** `create my-name`, `delete vm-h2` …, in order, as they came in. */
  readonly calls: readonly string[]
  /** Holds whatever comes to that stage until the function that it returns is called. */
  hold(stage: Stage): () => void
  /** How many calls are held, or have passed, at that stage. */
  reached(stage: Stage): number
  /** kill -9 of the provider's commands that are running now with that verb, up to `limit`; what they asked for goes on. Returns how many. */
  killCommands(verb: string, limit?: number): number
  stop(): Promise<void>
}

interface Input {
  readonly account: string
  readonly id?: string | null
  readonly name?: string
  readonly pool?: string
  readonly userData?: string
}

interface Answer {
  readonly exit: number
  readonly output: unknown
  readonly message?: string
}

/** `prepare` is what an image holds already: run once per new host, before its user data. */
export async function startMachineServer(
  hosts: Hosts,
  socket: string,
  prepare: (host: Host) => Promise<void>,
): Promise<MachineServer> {
  const machines: LabMachine[] = []
  const making = new Map<string, Promise<LabMachine>>()
  const deleting = new Set<Promise<void>>()
  const calls: string[] = []
  const levers: MachineLevers = { odd: new Map(), refuseNext: 0 }
  const gates = new Map<Stage, Promise<void>>()
  const reached = new Map<Stage, number>()
  /** Commands that wait for their answer, by process id. */
  const waiting = new Map<number, string>()
  const pass = async (stage: Stage) => {
    reached.set(stage, (reached.get(stage) ?? 0) + 1)
    await gates.get(stage)
  }
  const make = async ({ name = '', pool = '', account, userData = '' }: Input): Promise<LabMachine> => {
    const orderedAtMs = Date.now()
    const host = await hosts.addHost()
    await prepare(host)
    const createdAtMs = Date.now()
    const id = `vm-${host.name}`
    const machine: LabMachine = { id, name, host, pool, account, orderedAtMs, createdAtMs, bootedAtMs: null, deleted: false }
    machines.push(machine)
    const file = join(host.dir, 'user-data')
    writeFileSync(file, userData, { mode: 0o600 })
    void pass('boot').then(() => {
      machine.bootedAtMs = Date.now()
      if (host.running) host.start('user-data', ['sh', file])
    })
    return machine
  }
  const view = (machine: LabMachine) => ({
    id: machine.id,
    name: machine.name,
    state: 'running',
    address: machine.host.address,
    createdAt: machine.createdAtMs,
  })
  const verbs: Readonly<Record<string, (input: Input) => Promise<Answer>>> = {
    async create(input) {
      const { name = '', pool = '' } = input
      await pass('asked')
      const odd = levers.odd.get(pool)
      if (odd?.kind === 'refuses') return { exit: odd.exit, output: {}, message: odd.message }
      if (odd?.kind === 'hangs') await new Promise(() => {})
      if (levers.refuseNext > 0) {
        levers.refuseNext -= 1
        return { exit: 13, output: { retryAfterMs: 100 }, message: 'the cloud is busy' }
      }
      const known = machines.find((machine) => machine.name === name && !machine.deleted)
      const made = making.get(name) ?? (known ? Promise.resolve(known) : make(input))
      making.set(name, made)
      const machine = await made.finally(() => making.delete(name))
      await pass('made')
      if (odd?.kind === 'talks rubbish') return { exit: 0, output: 'Created. Have a nice day!' }
      return { exit: odd?.kind === 'fails after success' ? odd.exit : 0, output: view(machine), message: odd?.kind ?? '' }
    },
    async delete({ id, name }) {
      const unfinished = making.get(name ?? '')
      if (unfinished) await unfinished
      const machine = machines.find((candidate) => !candidate.deleted && (id ? candidate.id === id : candidate.name === name))
      if (!machine) return { exit: 12, output: {}, message: `there is no ${id}` }
      await pass('delete')
      const done = machine.deleted ? Promise.resolve() : machine.host.remove()
      machine.deleted = true
      deleting.add(done)
      await done.finally(() => deleting.delete(done))
      await pass('deleted')
      return { exit: 0, output: {} }
    },
    async list({ account }) {
      const own = machines.filter((machine) => !machine.deleted && machine.account === account)
      return { exit: 0, output: { complete: true, machines: own.map(view) } }
    },
  }
  const server = createServer((request, response) => {
    let text = ''
    request.on('data', (chunk: Buffer) => {
      text += chunk
    })
    request.on('end', () => {
      const asked = (request.url ?? '').slice(1)
      const answered = (value: Answer) => response.end(JSON.stringify(value))
      // A coordinator that is killed leaves its command with half a request: not one that a cloud would take.
      const input = parsed(text, String(request.headers['x-account']))
      if (input === null) return answered({ exit: 1, output: {}, message: 'that is half a request' })
      calls.push(`${asked} ${input.id ?? input.name ?? ''}`)
      const pid = Number(request.headers['x-pid'])
      waiting.set(pid, asked)
      response.on('close', () => waiting.delete(pid))
      const verb = verbs[asked]
      if (!verb) return answered({ exit: 1, output: {}, message: `unknown verb ${asked}` })
      verb(input).then(answered, (error: unknown) => answered({ exit: 1, output: {}, message: String(error) }))
    })
  })
  rmSync(socket, { force: true })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  return {
    command: (account) => [process.execPath, join(import.meta.dirname, 'exec-hosts.mjs'), socket, account],
    machines,
    levers,
    calls,
    hold(stage) {
      const { promise, resolve } = Promise.withResolvers<void>()
      gates.set(stage, promise)
      return () => {
        if (gates.get(stage) === promise) gates.delete(stage)
        resolve()
      }
    },
    reached: (stage) => reached.get(stage) ?? 0,
    killCommands(verb, limit = Number.POSITIVE_INFINITY) {
      const pids = [...waiting].filter(([, of]) => of === verb).map(([pid]) => pid)
      let count = 0
      for (const pid of pids) if (count < limit && killed(pid)) count += 1
      return count
    },
    async stop() {
      await Promise.allSettled([...making.values(), ...deleting])
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      rmSync(socket, { force: true })
    },
  }
}

function parsed(text: string, account: string): Input | null {
  try {
    return { ...(JSON.parse(text) as Input), account }
  } catch {
    return null
  }
}

/** False if it has ended by itself. */
function killed(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL')
  } catch {
    return false
  }
}
