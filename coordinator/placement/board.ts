/**
 * The cluster during one plan: nodes with what was decided for them so far, and who is where. Nodes that look alike to every
 * rule (same pool, zone, taints, attributes that some request asks for, about the same size) share a profile, so rules are
 * asked once per profile and not once per node; what tells a node apart from its like (instances, ports, volumes, images, its
 * name) is found through indexes. Pure: a board belongs to one plan.
 */
import { compare } from '../../shared/compare.ts'
import type { NodeId, ServiceId } from '../../shared/model/identity.ts'
import { type BoxTree, boxTree, type ProfileSet } from './box-tree.ts'
import { type ShortageTree, shortageTree } from './shortage-tree.ts'
import { attributeOf, countOf, firstStaticRejection, type NodeTally, staticKeyOf } from './filters.ts'
import type { Charge, PlacementNode, PlacementOptions, PlacementRequest } from './model.ts'

/** Nodes that differ in nothing a rule can ask for, but their names. */
export interface Profile {
  /** Stands for any node of the profile that the request does not name. */
  readonly example: PlacementNode
  readonly size: number
}

export interface ProfileRules {
  /** Why the profile's nodes are no place for the request, by profile; null where they are. */
  readonly rejections: readonly (string | null)[]
  /** All profiles that are a place for it. */
  readonly open: ProfileSet
  /** The same, divided by the values of `spreadOver`, one per attribute. */
  readonly zones: readonly { readonly values: readonly string[]; readonly profiles: ProfileSet }[]
}

export interface Board {
  /** By node id. */
  readonly tallies: readonly NodeTally[]
  readonly profiles: readonly Profile[]
  /** Index of the profile of each node. */
  readonly profileOf: Int32Array
  readonly volumes: Map<string, Map<NodeId, Set<ServiceId>>>
  /** Nodes out of the trees: they are looked at one by one. */
  readonly hidden: Uint8Array
  /** What the rules of the request make of the profiles. */
  rules(request: PlacementRequest): ProfileRules
  /** All nodes by how full they are. Made when first asked for. */
  tree(): BoxTree
  /** The same nodes for explanations. Made when first asked for. */
  shortageTree(): ShortageTree
  /** Brings the trees up to date after the node changed, or was hidden or shown. */
  refresh(index: number): void
  /** Nodes with instances of the service. */
  hosts(service: ServiceId): readonly number[]
  /** Nodes of the same host name, itself included; only while some request asks for names. */
  namesakes(index: number): readonly number[]
  /**
   * Nodes that are not like others to this request: they hold its service or its neighbours, its ports or rare ones of its
   * images, or are named in its rules. `bulkLabel`: why all others are no place for it, or null.
   */
  special(request: PlacementRequest, bulkLabel: string | null): ReadonlySet<number>
  /** How many images of the request only few nodes have (those that are not special have none of them), and where the others are. */
  imagesFor(request: PlacementRequest): { readonly rare: number; readonly common: readonly Uint8Array[] }
  take(request: PlacementRequest, index: number): void
}

/** So few attributes are looked up on every node without asking first which of them there are. */
const MANY_ATTRIBUTES = 16
const LABELS = 'node.labels.'
const ENGINE_LABELS = 'engine.labels.'
/** Equal to no value that a person can write. */
const NAMELESS = '\u0000'

export function openBoard(
  nodes: readonly PlacementNode[],
  requests: readonly PlacementRequest[],
  options: PlacementOptions,
): Board {
  const sorted = [...nodes].sort((a, b) => compare(a.id, b.id))
  const tallies = sorted.map((node): NodeTally => {
    const { cpuMillis, memoryBytes, diskBytes, slots } = node.free
    return { node, cpuMillis, memoryBytes, diskBytes, slots, services: null, hostPorts: null, repels: null }
  })
  const { profiles, profileOf } = profilesOf(sorted, requests)
  const hidden = new Uint8Array(sorted.length)
  let tree: BoxTree | null = null
  let shortages: ShortageTree | null = null
  const rules = new Map<string, ProfileRules>()
  const volumes: Board['volumes'] = new Map()
  const hosts: Index = new Map()
  const repelling: Index = new Map()
  const ports: Index = new Map()
  const images: Index = new Map()
  const names: Index = new Map()
  const asked = askedBy(requests)
  sorted.forEach((node, index) => {
    for (const [volume, services] of node.volumes) for (const service of services) noteVolume(volumes, volume, node.id, service)
    for (const [service, count] of node.services) if (count > 0 && asked.services.has(service)) note(hosts, service, index)
    for (const service of node.repels) if (asked.services.has(service)) note(repelling, service, index)
    for (const port of node.hostPorts) if (asked.ports.has(port)) note(ports, port, index)
    for (const image of node.images) if (asked.images.has(image)) note(images, image, index)
    if (!asked.names) return
    note(names, `node.id ${node.id.toLowerCase()}`, index)
    note(names, `node.hostname ${node.hostname.toLowerCase()}`, index)
  })
  const isRare = (image: string) => (images.get(image)?.length ?? 0) ** 2 <= Math.max(256, sorted.length)

  const placesOf = new Map<string, Uint8Array>()
  /** By node: 1 where the image is. */
  const whereIs = (image: string): Uint8Array => {
    const known = placesOf.get(image)
    if (known) return known
    const places = new Uint8Array(sorted.length)
    for (const index of images.get(image) ?? []) places[index] = 1
    placesOf.set(image, places)
    return places
  }

  const namesakes = (index: number) => names.get(`node.hostname ${(sorted[index] as PlacementNode).hostname.toLowerCase()}`) ?? []

  return {
    tallies,
    profiles,
    profileOf,
    volumes,
    hidden,
    namesakes,
    rules(request) {
      const key = `${staticKeyOf(request)}\n${request.rules.spreadOver.join('\n')}`
      const known = rules.get(key)
      if (known) return known
      const rejections = profiles.map((profile) => firstStaticRejection(request, profile.example))
      const values = profiles.map((profile) => zoneValues(request, profile.example))
      const zones = new Map<string, { values: readonly string[]; members: Set<number> }>()
      rejections.forEach((label, profile) => {
        if (label !== null) return
        const name = values[profile]?.join('\n') ?? ''
        const zone = zones.get(name) ?? { values: values[profile] ?? [], members: new Set() }
        zones.set(name, zone)
        zone.members.add(profile)
      })
      const found: ProfileRules = {
        rejections,
        open: profileSet(profiles.length, (profile) => rejections[profile] === null),
        zones: [...zones.values()].map(({ values, members }) => ({
          values,
          profiles: profileSet(profiles.length, (profile) => members.has(profile)),
        })),
      }
      rules.set(key, found)
      return found
    },
    tree() {
      tree ??= boxTree(tallies, profileOf, hidden, options.weights, usualCharge(requests))
      return tree
    },
    shortageTree() {
      shortages ??= shortageTree(tallies, profileOf, profiles.length, hidden)
      return shortages
    },
    refresh(index) {
      tree?.refresh(index)
      shortages?.changed(index)
    },
    hosts: (service) => hosts.get(service) ?? [],
    special(request, bulkLabel) {
      const found = new Set<number>()
      const add = (list: readonly number[] | undefined) => {
        for (const index of list ?? []) found.add(index)
      }
      add(hosts.get(request.service))
      for (const other of request.near) add(hosts.get(other))
      for (const other of request.avoid) add(hosts.get(other))
      add(repelling.get(request.service))
      for (const port of request.hostPorts) add(ports.get(port))
      for (const image of request.images) if (isRare(image)) add(images.get(image))
      for (const { attribute, value } of request.rules.constraints) add(names.get(`${attribute} ${value.toLowerCase()}`))
      if (request.rules.spreadOver.includes('node.hostname'))
        for (const index of hosts.get(request.service) ?? []) add(namesakes(index))
      if (bulkLabel === null) return found
      // Others are out of the question, so whoever may hold its data must be among these.
      const byId = (id: string) => {
        const index = lowerBound(sorted, id)
        if (sorted[index]?.id === id) found.add(index)
      }
      if (request.home !== null) byId(request.home)
      for (const volume of request.volumes) for (const id of volumes.get(volume)?.keys() ?? []) byId(id)
      return found
    },
    imagesFor(request) {
      const common = request.images.filter((image) => !isRare(image))
      return { rare: request.images.length - common.length, common: common.map(whereIs) }
    },
    take(request, index) {
      const tally = tallies[index] as NodeTally
      if (asked.services.has(request.service) && countOf(tally, request.service) === 0) note(hosts, request.service, index)
      tally.cpuMillis -= request.charge.cpuMillis
      tally.memoryBytes -= request.charge.memoryBytes
      tally.diskBytes -= request.charge.diskBytes
      tally.slots -= 1
      tally.services ??= new Map()
      tally.services.set(request.service, (tally.services.get(request.service) ?? 0) + 1)
      for (const port of request.hostPorts) {
        tally.hostPorts ??= new Set()
        tally.hostPorts.add(port)
        note(ports, port, index)
      }
      if (request.affinityRequired)
        for (const other of request.avoid) {
          tally.repels ??= new Set()
          if (tally.repels.has(other)) continue
          tally.repels.add(other)
          note(repelling, other, index)
        }
      for (const volume of request.volumes) noteVolume(volumes, volume, tally.node.id, request.service)
    },
  }
}

/** The node's values of the attributes over which the request is spread; '' for what it does not have. */
export function zoneValues(request: PlacementRequest, node: PlacementNode): readonly string[] {
  return request.rules.spreadOver.map((attribute) => attributeOf(node, attribute) ?? '')
}

function profileSet(count: number, has: (profile: number) => boolean): ProfileSet {
  const set = { has: new Uint8Array(count), before: new Int32Array(count + 1) }
  for (let profile = 0; profile < count; profile += 1) {
    set.has[profile] = has(profile) ? 1 : 0
    set.before[profile + 1] = (set.before[profile] ?? 0) + (set.has[profile] ?? 0)
  }
  return set
}

/** The mean. In whole numbers, so that the order of the requests decides nothing. */
function usualCharge(requests: readonly PlacementRequest[]): Charge {
  const sum = { cpuMillis: 0, memoryBytes: 0 }
  for (const { charge } of requests) {
    sum.cpuMillis += Math.round(charge.cpuMillis)
    sum.memoryBytes += Math.round(charge.memoryBytes)
  }
  const count = Math.max(1, requests.length)
  return { cpuMillis: sum.cpuMillis / count, memoryBytes: sum.memoryBytes / count, diskBytes: 0 }
}

/** A node without name, instances or end of room: turned away only by what turns away every node that is not special. */
export function bulkTally(): NodeTally {
  const endless = Number.POSITIVE_INFINITY
  const all = { cpuMillis: endless, memoryBytes: endless, diskBytes: endless, slots: endless }
  const node: PlacementNode = {
    id: NAMELESS,
    hostname: NAMELESS,
    labels: {},
    engineLabels: {},
    taints: [],
    platform: '',
    runtimes: [],
    pool: null,
    provider: null,
    zone: null,
    capacity: all,
    free: all,
    closed: null,
    services: new Map(),
    repels: new Set(),
    hostPorts: new Set(),
    volumes: new Map(),
    images: new Set(),
    measuredUse: null,
  }
  return { node, ...all, services: null, hostPorts: null, repels: null }
}

type Index = Map<string, number[]>

function note(index: Index, key: string, node: number): void {
  const list = index.get(key)
  if (list) list.push(node)
  else index.set(key, [node])
}

/** What the requests ask about: nothing else needs an index. */
function askedBy(requests: readonly PlacementRequest[]) {
  const services = new Set<ServiceId>()
  const ports = new Set<string>()
  const images = new Set<string>()
  let names = false
  for (const request of requests) {
    services.add(request.service)
    for (const other of request.near) services.add(other)
    for (const other of request.avoid) services.add(other)
    for (const port of request.hostPorts) ports.add(port)
    for (const image of request.images) images.add(image)
    names ||= attributesOf(request).some(isName)
  }
  return { services, ports, images, names }
}

function attributesOf(request: PlacementRequest): readonly string[] {
  return [...request.rules.constraints.map((constraint) => constraint.attribute), ...request.rules.spreadOver]
}

/** Attributes that tell single nodes apart. */
function isName(attribute: string): boolean {
  return attribute === 'node.id' || attribute === 'node.hostname'
}

function profilesOf(nodes: readonly PlacementNode[], requests: readonly PlacementRequest[]) {
  // Sorted: the order of the requests must decide nothing.
  const asked = [...new Set(requests.flatMap(attributesOf))].filter((attribute) => !isName(attribute)).sort()
  const attributes = asked.length > MANY_ATTRIBUTES ? foundIn(nodes, asked) : asked
  const byKey = new Map<string, number[]>()
  nodes.forEach((node, index) => {
    const { closed, runtimes, pool, platform, taints, capacity } = node
    const values = attributes.map((attribute) => attributeOf(node, attribute) ?? null)
    const sizes = [sizeClass(capacity.cpuMillis), sizeClass(capacity.memoryBytes), sizeClass(capacity.slots)]
    const key = JSON.stringify([closed, runtimes, pool, platform, taints, values, sizes])
    note(byKey, key, index)
  })
  // In order of their keys: likes are neighbours, so that what a rule excludes is a few stretches.
  const profileOf = new Int32Array(nodes.length)
  const profiles = [...byKey.keys()].sort(compare).map((key, profile): Profile => {
    const members = byKey.get(key) as number[]
    for (const index of members) profileOf[index] = profile
    return { example: { ...(nodes[members[0] ?? 0] as PlacementNode), id: NAMELESS, hostname: NAMELESS }, size: members.length }
  })
  return { profiles, profileOf }
}

/** Those that some node may have: one that none has tells no two of them apart, and a person can make up thousands. */
function foundIn(nodes: readonly PlacementNode[], attributes: readonly string[]): readonly string[] {
  const labels = new Set<string>()
  const engineLabels = new Set<string>()
  for (const node of nodes) {
    for (const key in node.labels) labels.add(key)
    for (const key in node.engineLabels) engineLabels.add(key)
  }
  return attributes.filter((attribute) => {
    if (attribute.startsWith(LABELS)) return labels.has(attribute.slice(LABELS.length))
    if (attribute.startsWith(ENGINE_LABELS)) return engineLabels.has(attribute.slice(ENGINE_LABELS.length))
    return true
  })
}

/** Sizes within a fifth are of one class: machines of one kind report slightly different memories. */
function sizeClass(capacity: number): number {
  return capacity > 0 ? Math.round(4 * Math.log2(capacity)) : -1
}

function noteVolume(volumes: Board['volumes'], volume: string, node: NodeId, service: ServiceId): void {
  let places = volumes.get(volume)
  if (!places) {
    places = new Map()
    volumes.set(volume, places)
  }
  const services = places.get(node)
  if (services) services.add(service)
  else places.set(node, new Set([service]))
}

function lowerBound(sorted: readonly PlacementNode[], id: string): number {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (((sorted[middle] as PlacementNode).id ?? '') < id) low = middle + 1
    else high = middle
  }
  return low
}
