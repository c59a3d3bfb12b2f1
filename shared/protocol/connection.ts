/** One message connection, whatever carries it: a websocket in production, a model network in tests. */

export interface Connection {
  /** Queues a text message. Throws never; a closed connection drops it. */
  send(text: string): void
  /** Bytes queued and not yet handed to the network. */
  bufferedBytes(): number
  /**
   * When the latest ping that the peer has answered was sent, in monotonic ms of this end; null: none was answered yet. All that
   * was sent before it has reached the peer: that much is certain, however long the answer took.
   */
  answeredMs(): number | null
  close(code: number, reason: string): void
  /** Handlers are set once, before the first message is delivered. */
  onMessage(handler: (text: string) => void): void
  /** Called exactly once, whoever closed it. */
  onClose(handler: (code: number, reason: string) => void): void
}

export type DialOutcome =
  | { readonly kind: 'open'; readonly connection: Connection }
  /** The credential was refused: repeating does not help until a person acts. */
  | { readonly kind: 'rejected'; readonly status: number; readonly detail: string }
  | { readonly kind: 'failed'; readonly detail: string }

/** Opens connections to a coordinator. Never rejects. */
export interface Dialer {
  dial(url: string, credential: string, signal: AbortSignal): Promise<DialOutcome>
}
