/** Facts of the host that the agent runs on, and commands on it. Constructed into the agent by daemon.ts only. */
import { execFile } from 'node:child_process'
import { createSocket } from 'node:dgram'
import { readFile } from 'node:fs/promises'

/** The host's own id: by it a cloned disk is told from its original. */
export async function machineId(): Promise<string | null> {
  try {
    return (await readFile('/etc/machine-id', 'utf8')).trim() || null
  } catch {
    return null
  }
}

/** The source address of the default route: asking the kernel sends nothing. */
export function defaultRouteAddress(): Promise<string> {
  return new Promise((resolveAddress) => {
    const socket = createSocket('udp4')
    socket.once('error', () => {
      socket.close()
      resolveAddress('127.0.0.1')
    })
    socket.connect(9, '192.0.2.1', () => {
      const { address } = socket.address()
      socket.close()
      resolveAddress(address)
    })
  })
}

/** Standard output of a command; rejects with what it said when it fails or takes longer than 10 s. */
export function runCommand(command: string, argv: readonly string[]): Promise<string> {
  return new Promise((resolveRun, reject) => {
    execFile(command, argv, { timeout: 10_000 }, (error, stdout, stderr) =>
      error ? reject(new Error(`${command}: ${stderr.trim() || error.message}`)) : resolveRun(stdout),
    )
  })
}
