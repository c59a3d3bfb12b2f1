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
  /** When its creation was first asked for, when it had booted, and when its user data began to run (null before), epoch ms. */
  readonly orderedAtMs: number
  readonly createdAtMs: number
  bootedAtMs: number | null
  deleted: boolean
}

/** What the cloud does to its callers; each takes effect with the next call. */
export interface MachineLevers {
  /** Answers `create` for that pool instead of making a machine. */
  readonly refuse: Map<string, { readonly exit: number; readonly message: string }>
  /** The next so many creations are refused with "try again". */
  refuseNext: number
  /** The next so many creations are carried out and never answered. */
  loseReplies: number
  /** Awaited before a machine is made, before its user data runs, and before it is deleted. */
  createGate: Promise<void> | null
  bootGate: Promise<void> | null
  deleteGate: Promise<void> | null
}

export interface MachineServer {
  /** Program and arguments of the provider's command. */
  readonly command: readonly string[]
  /** Every machine there ever was. */
  readonly machines: readonly LabMachine[]
  readonly levers: MachineLevers
  /** `create my-name`, `delete vm-h2` …, in order, as they came in. */
  readonly calls: readonly string[]
  stop(): Promise<void>
}

interface Input {
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
  const levers: MachineLevers = {
    refuse: new Map(),
    refuseNext: 0,
    loseReplies: 0,
    createGate: null,
    bootGate: null,
    deleteGate: null,
  }
  const make = async (name: string, pool: string, userData: string): Promise<LabMachine> => {
    const orderedAtMs = Date.now()
    const host = await hosts.addHost()
    await prepare(host)
    const createdAtMs = Date.now()
    const id = `vm-${host.name}`
    const machine: LabMachine = { id, name, host, pool, orderedAtMs, createdAtMs, bootedAtMs: null, deleted: false }
    machines.push(machine)
    const file = join(host.dir, 'user-data')
    writeFileSync(file, userData, { mode: 0o600 })
    const boot = () => {
      machine.bootedAtMs = Date.now()
      if (host.running) host.start('user-data', ['sh', file])
    }
    if (levers.bootGate) void levers.bootGate.then(boot)
    else boot()
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
    async create({ name = '', pool = '', userData = '' }) {
      if (levers.createGate) await levers.createGate
      const refusal = levers.refuse.get(pool)
      if (refusal) return { exit: refusal.exit, output: {}, message: refusal.message }
      if (levers.refuseNext > 0) {
        levers.refuseNext -= 1
        return { exit: 13, output: { retryAfterMs: 100 }, message: 'the cloud is busy' }
      }
      const known = machines.find((machine) => machine.name === name && !machine.deleted)
      if (known) return { exit: 0, output: view(known) }
      const made = making.get(name) ?? make(name, pool, userData)
      making.set(name, made)
      const machine = await made.finally(() => making.delete(name))
      if (levers.loseReplies > 0) {
        levers.loseReplies -= 1
        await new Promise(() => {})
      }
      return { exit: 0, output: view(machine) }
    },
    async delete({ id, name }) {
      const unfinished = making.get(name ?? '')
      if (unfinished) await unfinished
      const machine = machines.find((candidate) => !candidate.deleted && (id ? candidate.id === id : candidate.name === name))
      if (!machine) return { exit: 12, output: {}, message: `there is no ${id}` }
      if (levers.deleteGate) await levers.deleteGate
      const done = machine.deleted ? Promise.resolve() : machine.host.remove()
      machine.deleted = true
      deleting.add(done)
      await done.finally(() => deleting.delete(done))
      return { exit: 0, output: {} }
    },
    async list() {
      return { exit: 0, output: { complete: true, machines: machines.filter((machine) => !machine.deleted).map(view) } }
    },
  }
  const server = createServer((request, response) => {
    let text = ''
    request.on('data', (chunk: Buffer) => {
      text += chunk
    })
    request.on('end', () => {
      const input = JSON.parse(text) as Input
      calls.push(`${(request.url ?? '').slice(1)} ${input.id ?? input.name ?? ''}`)
      const verb = verbs[(request.url ?? '').slice(1)]
      const answer: Promise<Answer> = verb
        ? verb(input)
        : Promise.resolve({ exit: 1, output: {}, message: `unknown verb ${request.url}` })
      answer.then(
        (value) => response.end(JSON.stringify(value)),
        (error: unknown) => response.end(JSON.stringify({ exit: 1, output: {}, message: String(error) })),
      )
    })
  })
  rmSync(socket, { force: true })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  return {
    command: [process.execPath, join(import.meta.dirname, 'exec-hosts.mjs'), socket],
    machines,
    levers,
    calls,
    async stop() {
      await Promise.allSettled([...making.values(), ...deleting])
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      rmSync(socket, { force: true })
    },
  }
}
