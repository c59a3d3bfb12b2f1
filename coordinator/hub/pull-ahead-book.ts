/**
 * Tells agents which images to pull ahead, and believes what they say of them. Hints, no state: nothing is acknowledged or saved, no
 * set's revision moves, and an agent that never heard of them is told nothing (ADR 0032).
 */
import type { NodeId } from '../../shared/model/identity.ts'
import type { ImageToPull, PullAheadFrame, PulledAhead } from '../../shared/protocol/frames.ts'

export interface PullAheadBook {
  /** What every node shall pull ahead from now on; nodes that are not in it nothing. Cheap for nodes of which nothing changed. */
  want(wanted: ReadonlyMap<NodeId, readonly ImageToPull[]>): void
  /** A session was welcomed. Its agent is told also when there is nothing to pull: an earlier coordinator may have asked. */
  attached(nodeId: NodeId, pullsAhead: boolean): void
  detached(nodeId: NodeId): void
  /** An agent's answer; images that it was not asked for are ignored. */
  told(nodeId: NodeId, answer: PulledAhead): void
}

interface Told {
  text: string
  images: readonly ImageToPull[]
  state: PulledAhead
}

const NONE: readonly ImageToPull[] = []

export function createPullAheadBook(deps: {
  send(nodeId: NodeId, text: string): void
  /** How the images stand on the node; null: it pulls none ahead. */
  onChange(nodeId: NodeId, state: PulledAhead | null): void
}): PullAheadBook {
  let wanted: ReadonlyMap<NodeId, readonly ImageToPull[]> = new Map()
  const sessions = new Map<NodeId, Told>()

  const tell = (nodeId: NodeId, before: Told | undefined) => {
    const images = wanted.get(nodeId) ?? NONE
    if (images === before?.images) return
    const text = JSON.stringify({ type: 'pullAhead', images } satisfies PullAheadFrame)
    if (before?.text === text) {
      before.images = images
      return
    }
    const state = standing(images, before?.state)
    sessions.set(nodeId, { text, images, state })
    deps.send(nodeId, text)
    deps.onChange(nodeId, state)
  }
  const detached = (nodeId: NodeId) => {
    if (sessions.delete(nodeId)) deps.onChange(nodeId, null)
  }

  return {
    want(next) {
      wanted = next
      for (const [nodeId, told] of sessions) tell(nodeId, told)
    },
    attached(nodeId, pullsAhead) {
      if (pullsAhead) tell(nodeId, undefined)
      else detached(nodeId)
    },
    detached,
    told(nodeId, answer) {
      const told = sessions.get(nodeId)
      if (told === undefined) return
      const state = standing(told.images, answer)
      if (JSON.stringify(state) === JSON.stringify(told.state)) return
      told.state = state
      deps.onChange(nodeId, state)
    },
  }
}

/** How the images stand as far as `known` says; what it does not name is still to come. */
function standing(images: readonly ImageToPull[], known: PulledAhead | undefined): PulledAhead {
  const here: string[] = []
  const pending: string[] = []
  const failing: string[] = []
  for (const { image } of images)
    if (known?.here.includes(image)) here.push(image)
    else if (known?.failing.includes(image)) failing.push(image)
    else pending.push(image)
  return { here, pending, failing }
}
