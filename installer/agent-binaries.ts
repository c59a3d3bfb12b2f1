/** The agent's binaries that this coordinator serves to new machines, with their digests. */
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'

export type AgentArch = 'x64' | 'arm64'

export interface AgentBinary {
  readonly path: string
  /** Hex. */
  readonly sha256: string
  readonly sizeBytes: number
}

export interface AgentBinaries {
  /** The binary for an architecture, or null when there is none. Hashed once per change of the file. */
  get(arch: AgentArch): Promise<AgentBinary | null>
  /** Digests of all that are there: for user data. */
  digests(): Promise<Readonly<Partial<Record<AgentArch, string>>>>
}

const ARCHES: readonly AgentArch[] = ['x64', 'arm64']

/** Binaries named `rubato-agent-linux-<arch>` in `directory`; plain `rubato-agent` stands in for this host's architecture. */
export function agentBinaries(directory: string, hostArch: string = process.arch): AgentBinaries {
  const cache = new Map<string, { readonly stamp: string; readonly binary: Promise<AgentBinary> }>()
  const at = async (path: string): Promise<AgentBinary | null> => {
    const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return null
      throw error
    })
    if (!info?.isFile()) return null
    const stamp = `${info.ino}:${info.size}:${info.mtimeMs}`
    const known = cache.get(path)
    if (known?.stamp === stamp) return known.binary
    const binary = digestOf(path).then((sha256) => ({ path, sha256, sizeBytes: info.size }))
    cache.set(path, { stamp, binary })
    binary.catch(() => cache.delete(path))
    return binary
  }
  const get = async (arch: AgentArch) =>
    (await at(join(directory, `rubato-agent-linux-${arch}`))) ??
    (arch === hostArch ? await at(join(directory, 'rubato-agent')) : null)
  return {
    get,
    async digests() {
      const found: Partial<Record<AgentArch, string>> = {}
      for (const arch of ARCHES) {
        const binary = await get(arch)
        if (binary) found[arch] = binary.sha256
      }
      return found
    },
  }
}

function digestOf(path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const hash = createHash('sha256')
    createReadStream(path)
      .on('error', reject)
      .on('data', (chunk) => hash.update(chunk))
      .on('end', () => resolve(hash.digest('hex')))
  })
}
