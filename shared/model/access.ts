/** Keys, operator tokens and join tokens. Secrets are kept only as SHA-256 (hex) of the secret part. */

export interface KeyRecord {
  readonly id: string
  readonly name: string
  readonly roles: readonly string[]
  readonly secretHash: string
  readonly createdAtMs: number
  readonly expiresAtMs: number | null
  readonly revokedAtMs: number | null
}

export type OperatorRole = 'viewer' | 'operator' | 'admin'

export interface OperatorTokenRecord {
  readonly id: string
  readonly name: string
  readonly role: OperatorRole
  readonly secretHash: string
  readonly createdAtMs: number
  readonly expiresAtMs: number | null
}

export interface JoinTokenRecord {
  readonly id: string
  readonly secretHash: string
  readonly createdAtMs: number
  /** For a person's token the end of its life; a machine's ends with the wait for the machine, and is only remembered by this. */
  readonly expiresAtMs: number
  /** The machine it was made for; null for a token that a person asked for. */
  readonly machineId: string | null
  readonly labels: Readonly<Record<string, string>>
  /** Node that used it; a second use is refused. */
  readonly usedBy: string | null
  /** SHA-256 hex of the secret by which the agent that used it may ask again after a lost reply. */
  readonly retryProofHash?: string | null
}

/** A key as agents hold it. */
export interface PushedKey {
  readonly id: string
  readonly name: string
  readonly roles: readonly string[]
  readonly secretHash: string
  readonly expiresAtMs: number | null
}
