/** The test's side of exec-hosts.mjs: a cloud whose machines are hosts of the lab. They get nothing but their user data. */
import { rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import type { Host, Hosts } from './hosts.ts'

export interface LabMachine {
  readonly id: string
  readonly name: string
  readonly host: Host
  readonly createdAtMs: number
  deleted: boolean
}

export interface MachineServer {
  /** Program and arguments of the provider's command. */
  readonly command: readonly string[]
  /** Every machine there ever was. */
  readonly machines: readonly LabMachine[]
  stop(): Promise<void>
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
  const view = (machine: LabMachine) => ({
    id: machine.id,
    name: machine.name,
    state: 'running',
    address: machine.host.address,
    createdAt: machine.createdAtMs,
  })
  const verbs: Readonly<Record<string, (input: { id?: string; name?: string; userData?: string }) => Promise<Answer>>> = {
    async create({ name = '', userData = '' }) {
      const known = machines.find((machine) => machine.name === name && !machine.deleted)
      if (known) return { exit: 0, output: view(known) }
      const host = await hosts.addHost()
      await prepare(host)
      const machine: LabMachine = { id: `vm-${host.name}`, name, host, createdAtMs: Date.now(), deleted: false }
      machines.push(machine)
      const file = join(host.dir, 'user-data')
      writeFileSync(file, userData, { mode: 0o600 })
      host.start('user-data', ['sh', file])
      return { exit: 0, output: view(machine) }
    },
    async delete({ id }) {
      const machine = machines.find((candidate) => candidate.id === id && !candidate.deleted)
      if (!machine) return { exit: 12, output: {}, message: `there is no ${id}` }
      machine.deleted = true
      await machine.host.crash()
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
      const verb = verbs[(request.url ?? '').slice(1)]
      const answer: Promise<Answer> = verb
        ? verb(JSON.parse(text))
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
    async stop() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      rmSync(socket, { force: true })
    },
  }
}
