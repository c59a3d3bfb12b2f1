/**
 * An update that stops the old instance before the new one starts keeps the service down for as long as the new image takes to come,
 * so its node pulls the image first. Pure.
 */
import type { UnitSpec } from '../../shared/model/unit.ts'
import { imagesToPull } from '../placement/plan-pull-ahead.ts'
import type { RolloutState } from '../state/objects.ts'
import type { NodeObservation } from '../state/observed.ts'
import { type Draft, type Member, wake } from './draft.ts'
import { reason } from './service-plan.ts'

/**
 * How the images of a unit stand on a node. `settled`: all are there, or waiting for them is of no use (one cannot be pulled, the node
 * does not pull ahead or is not heard of).
 */
export type ImagesAt = 'settled' | 'pending' | 'unasked'

/** Every image is asked for by then that ever will be (pull-ahead-loop.ts). */
const ASKED_MS = 2_000
/** From the start of an update on: an image that takes longer is pulled while the instance is down, as without any of this. */
const WAIT_MS = 5 * 60_000

export function imagesAt(node: NodeObservation | undefined, unit: UnitSpec): ImagesAt {
  const ahead = node?.liveness === 'live' && node.connected ? node.ahead : null
  if (ahead === null) return 'settled'
  const images = imagesToPull(unit).map(({ image }) => image)
  if (images.some((image) => ahead.failing.includes(image))) return 'settled'
  const missing = images.filter((image) => !ahead.here.includes(image))
  if (missing.length === 0) return 'settled'
  return missing.every((image) => ahead.pending.includes(image)) ? 'pending' : 'unasked'
}

/** Whether the update leaves the instance running for now. One that serves nothing has nothing to lose. */
export function waitsForImages(draft: Draft, { record, standing }: Member, rollout: RolloutState): boolean {
  if (standing !== 'ready' || record.nodeId === null) return false
  const state = draft.input.images(record.nodeId)
  const waitMs = state === 'settled' ? 0 : state === 'pending' ? WAIT_MS : ASKED_MS
  const agoMs = draft.now - rollout.startedAtMs
  // A wall clock that jumped, either way, makes no update wait longer.
  if (agoMs < 0 || agoMs >= waitMs) return false
  wake(draft, rollout.startedAtMs + waitMs)
  draft.reasons.push(reason(record.id, 'waits-for-images', `runs on until ${record.nodeId} has pulled the images of the update`))
  return true
}
