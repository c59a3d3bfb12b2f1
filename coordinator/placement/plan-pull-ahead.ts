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

/** Instances that are there run, or stop for, another unit than these images are of: where they go is known. */
export interface UpdateWant {
  readonly service: ServiceId
  readonly images: readonly ImageToPull[]
  /** Those whose turn comes first come first. */
  readonly nodes: readonly NodeId[]
}

/** Instances that may come: they go where placement puts these requests. */
export interface GrowthWant {
  readonly service: ServiceId
  readonly images: readonly ImageToPull[]
  readonly requests: readonly PlacementRequest[]
}

export interface PullAheadInput {
  readonly updates: readonly UpdateWant[]
  /** Most urgent first. */
  readonly growth: readonly GrowthWant[]
  readonly nodes: readonly PlacementNode[]
  /** Measured part of the node's disk that is in use, 0–1; null: nobody knows. */
  readonly diskUse: ReadonlyMap<NodeId, number | null>
  readonly options: PlacementOptions
}

/** Enough for an update and what grows beside it; more would queue up behind each other anyway. */
export const IMAGES_PER_NODE = 8
/** Above this an image that nobody runs yet takes the room of what runs. */
const FULL_DISK = 0.8
/** As the frame's bound: an agent refuses a longer name. */
const MAX_NAME = 500

/** By node, most urgent first; nodes without any are left out. */
export function planPullAhead(input: PullAheadInput): ReadonlyMap<NodeId, readonly ImageToPull[]> {
  const { updates, growth, options } = input
  const wanted = new Map<NodeId, ImageToPull[]>()
  const nodes = new Map(input.nodes.map((node) => [node.id, node]))
  const add = (nodeId: NodeId, images: readonly ImageToPull[], isThere: (node: PlacementNode, image: string) => boolean) => {
    const node = nodes.get(nodeId)
    if (node === undefined || !mayPull(node, input.diskUse.get(nodeId) ?? null)) return
    const here = wanted.get(nodeId) ?? []
    for (const want of images)
      if (here.length < IMAGES_PER_NODE && !isThere(node, want.image) && !here.some(({ image }) => image === want.image))
        here.push(want)
    if (here.length > 0) wanted.set(nodeId, here)
  }
  // The update waits for the node's own word, so it is asked even where the image is believed to be.
  for (const { nodes: places, images } of updates) for (const nodeId of places) add(nodeId, images, () => false)
  const places = Map.groupBy(
    planPlacement({ requests: growth.flatMap(({ requests }) => requests), nodes: input.nodes, options }).assignments,
    ({ request }) => request.service,
  )
  for (const { service, images } of growth)
    for (const { node } of places.get(service) ?? []) add(node, images, ({ images: there }, image) => there.has(image))
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
