/**
 * Which images shall be on which nodes before an instance needs them? For updates: the new images where old instances stop for new
 * ones. For growth: where placement would put the next instances now. Pure. Bounded, since what is pulled costs disk and a registry's
 * patience: a few images per node, a few nodes per service, none where no instance may go or the disk fills up (ADR 0032).
 */
import type { NodeId, ServiceId } from '../../shared/model/identity.ts'
import type { UnitSpec } from '../../shared/model/unit.ts'
import type { ImageToPull } from '../../shared/protocol/frames.ts'
import type { PlacementNode, PlacementOptions, PlacementRequest } from './model.ts'
import { planPlacement } from './plan-placement.ts'

/** Images of one service that shall be on these nodes, those whose turn comes first first. */
export interface PullWant {
  readonly service: ServiceId
  readonly images: readonly ImageToPull[]
  readonly nodes: readonly NodeId[]
}

/** Instances that may come: they go where placement puts these requests. */
export interface GrowthWant {
  readonly service: ServiceId
  readonly images: readonly ImageToPull[]
  readonly requests: readonly PlacementRequest[]
}

export interface PullAheadInput {
  readonly updates: readonly PullWant[]
  /** Most urgent first. */
  readonly growth: readonly PullWant[]
  readonly nodes: readonly PlacementNode[]
  /** Measured part of the node's disk that is in use, 0–1; null: nobody knows. */
  diskUse(node: PlacementNode): number | null
}

/** Enough for an update and what grows beside it; more would queue up behind each other anyway. */
export const IMAGES_PER_NODE = 8
/** Above this an image that nobody runs yet takes the room of what runs. */
const FULL_DISK = 0.8
/** As the frame's bound: an agent refuses a longer name. */
const MAX_NAME = 500

/** Where the instances would go if they came now; in the order of `growth`. */
export function placeGrowth(
  growth: readonly GrowthWant[],
  nodes: readonly PlacementNode[],
  options: PlacementOptions,
): readonly PullWant[] {
  const requests = growth.flatMap((want) => want.requests)
  const { assignments } = planPlacement({ requests, nodes, options })
  const places = Map.groupBy(assignments, ({ request }) => request.service)
  return growth.flatMap(({ service, images }) => {
    const chosen = new Set((places.get(service) ?? []).map(({ node }) => node))
    return chosen.size === 0 ? [] : [{ service, images, nodes: [...chosen] }]
  })
}

/** By node, most urgent first; nodes without any are left out. */
export function planPullAhead({ updates, growth, nodes, diskUse }: PullAheadInput): ReadonlyMap<NodeId, readonly ImageToPull[]> {
  const wanted = new Map<NodeId, ImageToPull[]>()
  const nodeOf = new Map(nodes.map((node) => [node.id, node]))
  const add = (want: PullWant, isThere: (node: PlacementNode, image: string) => boolean) => {
    for (const nodeId of want.nodes) {
      const node = nodeOf.get(nodeId)
      if (node === undefined || !mayPull(node, diskUse(node))) continue
      const here = wanted.get(nodeId) ?? []
      for (const next of want.images)
        if (here.length < IMAGES_PER_NODE && !isThere(node, next.image) && !here.some(({ image }) => image === next.image))
          here.push(next)
      if (here.length > 0) wanted.set(nodeId, here)
    }
  }
  // The update waits for the node's own word, so it is asked even where the image is believed to be.
  for (const want of updates) add(want, () => false)
  for (const want of growth) add(want, ({ images }, image) => images.has(image))
  return wanted
}

function mayPull(node: PlacementNode, diskUse: number | null): boolean {
  return node.closed === null && node.runtimes.includes('docker') && (diskUse === null || diskUse < FULL_DISK)
}

/** What a node pulls for an instance of the unit; nothing of what it must not pull, or has no images. */
export function imagesToPull(unit: UnitSpec): readonly ImageToPull[] {
  if (unit.runtime !== 'docker') return []
  return unit.containers.flatMap(({ image, pullPolicy, platform }) => {
    if (image === '' || image.length > MAX_NAME || pullPolicy === 'never') return []
    return [{ image, ...(platform ? { platform } : {}), ...(pullPolicy === 'always' ? { refresh: true as const } : {}) }]
  })
}
