/** Which engine the demo runs on: one that answers, one that it installs and starts itself (root on Debian), or plain processes. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { startDockerd } from '../lab/dockerd.ts'
import { engineAnswers } from '../lab/engine-api.ts'
import { installPackages, isRootOnDebian, PACKAGES } from '../lab/packages.ts'

export interface DemoEngine {
  readonly kind: 'docker' | 'process'
  readonly socket: string | null
  /** Packages that were installed for it and stay. */
  readonly installed: readonly string[]
  /** Ends the engine if the demo started it. */
  stop(): Promise<void>
}

const SYSTEM_SOCKET = '/var/run/docker.sock'
const NEEDED = ['docker.io', 'iptables', 'iproute2']

export async function chooseEngine(wanted: string | undefined, dir: string, say: (line: string) => void): Promise<DemoEngine> {
  if (wanted !== undefined && wanted !== 'docker' && wanted !== 'process')
    throw new Error(`ENGINE=${wanted}: it is docker or process`)
  const processes: DemoEngine = { kind: 'process', socket: null, installed: [], stop: async () => {} }
  if (wanted === 'process') return processes
  if (existsSync(SYSTEM_SOCKET) && (await engineAnswers(SYSTEM_SOCKET)))
    return { ...processes, kind: 'docker', socket: SYSTEM_SOCKET }
  if (!isRootOnDebian()) {
    if (wanted === 'docker')
      throw new Error('ENGINE=docker, but no Docker engine answers, and to install one needs root on Debian or Ubuntu')
    say('no Docker engine answers, and this is not root on Debian or Ubuntu: using plain processes')
    return processes
  }
  const installed = NEEDED.filter((name) => !existsSync(PACKAGES[name] ?? ''))
  if (!(await installPackages(say, NEEDED))) throw new Error('Docker could not be installed; try ENGINE=process')
  say('starting a Docker engine of our own')
  const dockerd = await startDockerd(join(dir, 'dockerd'))
  return { kind: 'docker', socket: dockerd.socket, installed, stop: () => dockerd.stop() }
}
