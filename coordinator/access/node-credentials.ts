/** Whom a node credential belongs to. */
import { hashSecret, newCredential, parseCredential, secretMatches } from '../../shared/credentials.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import { createHmac } from 'node:crypto'
import type { Random } from '../../shared/random.ts'
import type { Snapshot } from '../state/state.ts'

const DUMMY_HASH = '0'.repeat(64)

/** The node that holds this credential (`rbtn_…`, as in `Authorization: Bearer`), or null. Same time for every refusal. */
export function authenticateNode(snapshot: Snapshot, text: string): NodeId | null {
  const given = parseCredential('rbtn', text)
  const node = given ? snapshot.get('node', given.id) : undefined
  const matches = secretMatches(given?.secret ?? '', node?.credentialHash ?? DUMMY_HASH)
  return matches && node ? node.id : null
}

/**
 * The credential of a node that joins. With a retry proof (a secret of the agent's own making) it is derived from that, so that
 * the same agent asking again after a lost reply gets the same credential; without one it is drawn at random.
 */
export function mintNodeCredential(
  nodeId: NodeId,
  retryProof: string | null,
  meshSecret: string,
  random: Random,
): { text: string; secretHash: string } {
  const source = retryProof === null ? random : derivedRandom(meshSecret, `node-credential\n${nodeId}\n${retryProof}`)
  return newCredential('rbtn', nodeId, source)
}

/** SHA-256 hex of a retry proof: what is kept of it. */
export function retryProofHash(retryProof: string): string {
  return hashSecret(retryProof)
}

/** A stream of bytes fixed by key and label (HMAC-SHA256 in counter mode); unpredictable without both. */
function derivedRandom(meshSecret: string, label: string): Random {
  const key = Buffer.from(meshSecret, 'base64')
  let counter = 0
  const bytes = (length: number) => {
    const blocks: Buffer[] = []
    for (let size = 0; size < length; size += 32) blocks.push(createHmac('sha256', key).update(`${label}\n${counter++}`).digest())
    return Buffer.concat(blocks).subarray(0, length)
  }
  return { bytes, next: () => Buffer.from(bytes(6)).readUIntBE(0, 6) / 2 ** 48 }
}
