/**
 * May these fit on the other nodes at all? Asked before placement is tried, which costs as much as the cluster is large: what is
 * refused here placement would refuse too; what is not it may still refuse. A question costs about the logarithm of the number of
 * nodes per request. Pure.
 */
import { compare } from '../../shared/compare.ts'
import type { NodeId } from '../../shared/model/identity.ts'
import type { PlacementNode, PlacementRequest } from '../placement/model.ts'

export interface SpareRoom {
  /** Why they cannot all be placed without that node: a sentence about one of them, or about all; null when they may. */
  refusal(requests: readonly PlacementRequest[], without: NodeId): string | null
}

/** An open node with a slot, and its room. */
interface Room {
  readonly id: NodeId
  readonly cpuMillis: number
  readonly memoryBytes: number
}

export function spareRoom(nodes: readonly PlacementNode[]): SpareRoom {
  const rooms = new Map<NodeId, Room>()
  for (const { id, closed, free } of nodes)
    if (closed === null && free.slots >= 1 && free.cpuMillis >= 0 && free.memoryBytes >= 0)
      rooms.set(id, { id, cpuMillis: free.cpuMillis, memoryBytes: free.memoryBytes })
  const byCpu = [...rooms.values()].sort((a, b) => b.cpuMillis - a.cpuMillis || compare(a.id, b.id))
  // Of the nodes up to each, the two with the most memory: one of them is not the node that shall go.
  const most: (readonly [Room, Room | null])[] = []
  for (const room of byCpu) {
    const [first, second] = most.at(-1) ?? [null, null]
    if (first === null) most.push([room, null])
    else if (room.memoryBytes > first.memoryBytes) most.push([room, first])
    else most.push([first, second === null || room.memoryBytes > second.memoryBytes ? room : second])
  }
  const sum = { cpuMillis: 0, memoryBytes: 0 }
  for (const room of byCpu) {
    sum.cpuMillis += room.cpuMillis
    sum.memoryBytes += room.memoryBytes
  }

  const fitsSomewhere = ({ charge }: PlacementRequest, without: NodeId): boolean => {
    let low = 0
    let high = byCpu.length
    while (low < high) {
      const middle = (low + high) >> 1
      if ((byCpu[middle] as Room).cpuMillis >= charge.cpuMillis) low = middle + 1
      else high = middle
    }
    const [first, second] = most[low - 1] ?? [null, null]
    const best = first?.id === without ? second : first
    return best !== null && best.memoryBytes >= charge.memoryBytes
  }

  return {
    refusal(requests, without) {
      let cpuMillis = 0
      let memoryBytes = 0
      for (const request of requests) {
        if (!fitsSomewhere(request, without)) return `${request.id} would fit on no other node`
        cpuMillis += request.charge.cpuMillis
        memoryBytes += request.charge.memoryBytes
      }
      const own = rooms.get(without)
      const isEnough =
        cpuMillis <= sum.cpuMillis - (own?.cpuMillis ?? 0) && memoryBytes <= sum.memoryBytes - (own?.memoryBytes ?? 0)
      return isEnough ? null : 'its instances need more than is free on the others together'
    },
  }
}
