/**
 * Which change of keys each node is known to have applied: a revocation waits for it. Changes are counted by one revision of
 * their own; frames to a node by that of its key set. A change counts as applied once no frame that might carry it is open.
 */
import type { NodeId } from '../../shared/model/identity.ts'

export interface KeyAcks {
  /** Keys, or what nodes need of them, changed. */
  changed(): void
  /** Of the last change. */
  revision(): number
  /** All changes until now are sent to whom they concern. */
  flushed(): void
  /** A new connection: until its full set, the frame `nextFrame`, is confirmed nothing counts as applied. */
  attached(node: NodeId, nextFrame: number): void
  /** A frame went out. */
  sent(node: NodeId, frame: number): void
  /** The node has confirmed its frames up to this one. */
  acked(node: NodeId, frame: number): void
  forget(node: NodeId): void
  /** The last change that the node is known to have applied. Of a connected node. */
  appliedBy(node: NodeId): number
}

interface OpenFrame {
  readonly frame: number
  /** The change before which it changes nothing. */
  readonly fromRevision: number
}

export function createKeyAcks(): KeyAcks {
  let revision = 1
  let flushed = 0
  /** By node, oldest first. */
  const open = new Map<NodeId, OpenFrame[]>()
  return {
    changed() {
      revision += 1
    },
    revision: () => revision,
    flushed() {
      flushed = revision
    },
    attached(node, nextFrame) {
      open.set(node, [{ frame: nextFrame, fromRevision: 0 }])
    },
    sent(node, frame) {
      const frames = open.get(node)
      if (frames) frames.push({ frame, fromRevision: flushed })
      else open.set(node, [{ frame, fromRevision: flushed }])
    },
    acked(node, frame) {
      const left = (open.get(node) ?? []).filter((item) => item.frame > frame)
      if (left.length > 0) open.set(node, left)
      else open.delete(node)
    },
    forget: (node) => void open.delete(node),
    appliedBy: (node) => open.get(node)?.[0]?.fromRevision ?? flushed,
  }
}
