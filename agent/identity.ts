/**
 * Who this node is, kept in `<stateDir>/identity.json` (0600). It carries the host's machine id: in a cloned image the file names
 * another host, and the node joins anew instead of speaking for its original (V9).
 */
import { join } from 'node:path'
import { z } from 'zod'
import type { Files } from '../shared/files.ts'
import type { JoinResponse } from '../shared/protocol/join.ts'

const identitySchema = z.object({
  clusterId: z.string().min(1),
  nodeId: z.string().min(1),
  credential: z.string().min(1),
  urls: z.array(z.string()),
  /** Authority to trust for the coordinator, and nobody else; null: plain HTTP, or the system's authorities. */
  caPem: z.string().nullable(),
  /** null where the host has none. */
  machineId: z.string().nullable(),
})

export interface Identity extends JoinResponse {
  readonly caPem: string | null
}

export type LoadedIdentity =
  | { readonly kind: 'none' }
  | { readonly kind: 'known'; readonly identity: Identity }
  /** The file is another host's: state of that node lies here too and must not be used. */
  | { readonly kind: 'cloned'; readonly nodeId: string }
  /** The file cannot be read: it is as good as none, but a person should know. */
  | { readonly kind: 'damaged' }

function identityPath(stateDir: string): string {
  return join(stateDir, 'identity.json')
}

/** What the state directory says about who we are. Changes nothing. */
export async function loadIdentity(files: Files, stateDir: string, machineId: string | null): Promise<LoadedIdentity> {
  const text = await files.read(identityPath(stateDir))
  if (text === null) return { kind: 'none' }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    return { kind: 'damaged' }
  }
  const parsed = identitySchema.safeParse(json)
  if (!parsed.success) return { kind: 'damaged' }
  const { machineId: recorded, ...identity } = parsed.data
  const isOtherHost = recorded !== null && machineId !== null && recorded !== machineId
  return isOtherHost ? { kind: 'cloned', nodeId: identity.nodeId } : { kind: 'known', identity }
}

export async function saveIdentity(files: Files, stateDir: string, identity: Identity, machineId: string | null): Promise<void> {
  await files.write(identityPath(stateDir), `${JSON.stringify({ ...identity, machineId }, null, 2)}\n`, 0o600)
}

/** Forgets who we are: after a clone was found, and when the node leaves. */
export async function forgetIdentity(files: Files, stateDir: string): Promise<void> {
  await files.remove(identityPath(stateDir))
}
