/** Which slots go when fewer instances are wanted (design §8.1). Pure. */
import type { Draft, Member } from './draft.ts'
import { isLeaving } from './service-plan.ts'

/**
 * At most `count` slots to empty: those that wait, then those on draining nodes, then unhealthy ones, then those on the
 * emptiest node, then the highest slot. Never so many ready ones that fewer than `wanted` ready ones stay: the rest
 * follows once others are ready (invariant I4).
 */
export function chooseVictims(draft: Draft, count: number): number[] {
  if (count <= 0) return []
  const slots = [...draft.running].map(([slot, here]) => ({
    slot,
    order: orderOf(draft, here),
    mayServe: here.some(mayServe),
    serves: here.some(serves),
  }))
  let spare = slots.filter((slot) => slot.serves).length - draft.wanted
  slots.sort((a, b) => compare(a.order, b.order) || b.slot - a.slot)
  const victims: number[] = []
  for (const { slot, mayServe, serves } of slots) {
    if (victims.length >= count) break
    if (mayServe && spare <= 0 && draft.wanted > 0) continue
    if (serves) spare -= 1
    victims.push(slot)
  }
  return victims
}

function serves(member: Member): boolean {
  return member.standing === 'ready' || member.standing === 'completed'
}

function mayServe(member: Member): boolean {
  return serves(member) || member.standing === 'unknown'
}

function orderOf(draft: Draft, here: readonly Member[]): readonly number[] {
  const nodeOf = (member: Member) => (member.record.nodeId === null ? undefined : draft.input.node(member.record.nodeId))
  return [
    here.every((member) => member.standing === 'waiting') ? 0 : 1,
    here.some((member) => isLeaving(draft.input, member.record.nodeId)) ? 0 : 1,
    here.some(mayServe) && !here.some((member) => member.crashLooping) ? 1 : 0,
    Math.min(...here.map((member) => nodeOf(member)?.instances ?? 0)),
  ]
}

function compare(a: readonly number[], b: readonly number[]): number {
  for (let i = 0; i < a.length; i += 1) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
