/**
 * The way out to services: listeners for published ports (on the node's address) and for virtual addresses (on the bridge).
 * Each request gets the endpoint that the balance chooses; for one on this node its ingress decides at once, to another node goes
 * a proof of the calling service beside it. Routes may change at any time: connections go on, the next request sees the new set.
 */
import type { Clock, Timer } from '../../../shared/clock.ts'
import { messageOf } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import type { NodeId, ServiceId } from '../../../shared/model/identity.ts'
import type { PortProtocol } from '../../../shared/model/unit.ts'
import { type Route, type RouteEndpoint, routeKey } from '../../../shared/protocol/frames.ts'
import type { Random } from '../../../shared/random.ts'
import { PROOF_HEADER, type ProofMinter } from '../proof.ts'
import { type Candidate, chooseEndpoint } from './balance.ts'
import type { Forward } from './http-exchange.ts'
import type { Refusal, RequestHead } from './http-head.ts'
import { forwardedLines, type Ingresses } from './ingress.ts'
import type { ListenerFactory } from './listener-factory.ts'
import type { Listener } from './listener.ts'
import { reachableEndpoints } from './plan-endpoints.ts'
import { planVirtualAddresses } from './plan-virtual-addresses.ts'
import { preambleOf, type RelayDecision, type RelayTarget } from './tcp-relay.ts'
import { newTrack, type Track } from './track.ts'
import type { VirtualAddresses } from './virtual-addresses.ts'

export interface EgressDeps {
  readonly address: string
  readonly nodeId: NodeId
  /** Virtual addresses of this node, e.g. 127.96.0.0/16. */
  readonly meshSlice: string
  readonly virtualAddresses: VirtualAddresses
  readonly ingresses: Ingresses
  readonly listeners: ListenerFactory
  readonly minter: ProofMinter
  readonly clock: Clock
  readonly random: Random
  readonly logger: Logger
  readonly callerOf: (address: string) => ServiceId | null
  /** Told once per port that cannot be bound; it is tried again meanwhile. */
  readonly onProblem: (problem: string) => void
}

export interface Egress {
  setRoutes(routes: readonly Route[]): Promise<void>
  setLoads(loads: Readonly<Record<string, number>>): void
  /** `name:address` for every service that a container of `app` may name. */
  hostsFor(app: string): readonly string[]
  virtualAddressOf(service: ServiceId): string | null
  stop(): Promise<void>
}

interface Endpoint extends Candidate {
  loadPercent: number | null
  readonly inFlight: number
  endpoint: RouteEndpoint
  readonly track: Track
  ejectedUntilMs: number
}

interface RouteState {
  route: Route
  readonly endpoints: Map<string, Endpoint>
  ready: readonly Endpoint[]
  turn: number
}

interface Wanted {
  readonly address: string
  readonly port: number
  readonly protocol: PortProtocol
  readonly state: RouteState
}

interface Open {
  readonly listener: Listener
  readonly state: RouteState
  closing: boolean
}

const EJECT_AFTER_FAILURES = 2
const EJECT_MS = 10_000
const BIND_RETRY_MS = 5_000

const NO_ENDPOINT: Refusal = { kind: 'refuse', status: 503, code: 'no-endpoint', detail: 'No instance of the service is ready.' }
const UNREACHABLE: Refusal = {
  kind: 'refuse',
  status: 502,
  code: 'upstream-unreachable',
  detail: 'No instance of the service can be reached.',
}

export function createEgress(deps: EgressDeps): Egress {
  const states = new Map<string, RouteState>()
  const open = new Map<string, Open>()
  const problems = new Set<string>()
  let loads: Record<string, number> = {}
  let addresses: ReadonlyMap<ServiceId, string> = new Map()
  let bound = new Set<string>()
  let changing: Promise<void> = Promise.resolve()
  let retryTimer: Timer | null = null
  let stopped = false

  const choose = (state: RouteState, tried: readonly Endpoint[], hashKey: string): Endpoint | null => {
    const nowMs = deps.clock.monotonicMs()
    let candidates = state.ready
    if (tried.length > 0 || candidates.some((candidate) => candidate.ejectedUntilMs > nowMs)) {
      const untried = candidates.filter((candidate) => !tried.includes(candidate))
      const sound = untried.filter((candidate) => candidate.ejectedUntilMs <= nowMs)
      candidates = sound.length > 0 ? sound : untried
    }
    // Better one that is about to leave, or is in doubt, than none.
    if (candidates.length === 0) candidates = [...state.endpoints.values()].filter((candidate) => !tried.includes(candidate))
    state.turn += 1
    const index = chooseEndpoint(state.route.balance, candidates, {
      random: [deps.random.next(), deps.random.next()],
      turn: state.turn,
      hashKey,
    })
    return candidates[index] ?? null
  }

  const noteFailure = (endpoint: Endpoint) => {
    if (endpoint.track.connectFailures < EJECT_AFTER_FAILURES) return
    endpoint.track.connectFailures = 0
    endpoint.ejectedUntilMs = deps.clock.monotonicMs() + EJECT_MS
    deps.logger.info('endpoint does not answer, left out for a while', { instance: endpoint.instance, forMs: EJECT_MS })
  }

  const forwardTo = (state: RouteState, head: RequestHead, peer: string, tried: readonly Endpoint[]): Forward | Refusal => {
    const chosen = choose(state, tried, peer)
    if (chosen === null) return tried.length === 0 ? NO_ENDPOINT : UNREACHABLE
    const next = () => {
      noteFailure(chosen)
      return forwardTo(state, head, peer, [...tried, chosen])
    }
    const caller = deps.callerOf(peer)
    const local = deps.ingresses.decideFor(chosen.instance, state.route.containerPort, head, peer, { caller })
    if (local !== null)
      return local.kind === 'refuse' ? local : { ...local, tracks: [...local.tracks, chosen.track], retry: next }
    // Routed to this node, yet not here: it has just gone.
    if (chosen.endpoint.node === deps.nodeId) return forwardTo(state, head, peer, [...tried, chosen])
    let lines = forwardedLines(head, peer, false)
    if (head.authorization !== null) lines += `authorization: ${head.authorization}\r\n`
    if (head.apiKey !== null) lines += `x-api-key: ${head.apiKey}\r\n`
    const proof = deps.minter.mint(caller ?? '', chosen.instance, deps.clock.now())
    if (proof !== null) lines += `${PROOF_HEADER}: ${proof}\r\n`
    const { address, gatewayPort } = chosen.endpoint
    return { kind: 'forward', address, port: gatewayPort, addedLines: lines, tracks: [chosen.track], retry: next }
  }

  const relayTo = (state: RouteState, peer: string, tried: readonly Endpoint[]): RelayDecision => {
    const chosen = choose(state, tried, peer)
    if (chosen === null) return { kind: 'deny' }
    const retry = (): RelayTarget | null => {
      noteFailure(chosen)
      const next = relayTo(state, peer, [...tried, chosen])
      return next.kind === 'relay' ? next.target : null
    }
    const caller = deps.callerOf(peer)
    const local = deps.ingresses.relayFor(chosen.instance, state.route.containerPort, { caller })
    if (local !== null)
      return local.kind === 'deny'
        ? local
        : { kind: 'relay', target: { ...local.target, tracks: [...local.target.tracks, chosen.track], retry } }
    if (chosen.endpoint.node === deps.nodeId) return relayTo(state, peer, [...tried, chosen])
    const proof = deps.minter.mint(caller ?? '', chosen.instance, deps.clock.now())
    const { address, gatewayPort } = chosen.endpoint
    const preamble = proof === null ? null : preambleOf(proof)
    return { kind: 'relay', target: { address, port: gatewayPort, preamble, tracks: [chosen.track], retry } }
  }

  const listenFor = (wanted: Wanted): Promise<Listener> => {
    const { state, address, port } = wanted
    switch (wanted.protocol) {
      case 'http':
        return deps.listeners.http(address, port, {
          decide: (head, peer) => forwardTo(state, head, peer, []),
          get closing() {
            return open.get(`${wanted.protocol} ${address} ${port}`)?.state !== state
          },
        })
      case 'tcp':
        return deps.listeners.tcp(address, port, {
          open: (peer) => relayTo(state, peer, []),
          openWith: () => ({ kind: 'deny' }),
          stripProof: false,
        })
      case 'udp':
        return deps.listeners.udp(address, port, () => {
          const chosen = choose(state, [], '')
          if (chosen === null) return null
          if (chosen.endpoint.node === deps.nodeId)
            return deps.ingresses.datagramTarget(chosen.instance, state.route.containerPort)
          return { address: chosen.endpoint.address, port: chosen.endpoint.gatewayPort, track: chosen.track }
        })
    }
  }

  const converge = async (): Promise<void> => {
    retryTimer?.cancel()
    retryTimer = null
    const wanted = stopped ? new Map<string, Wanted>() : wantedListeners()
    for (const [key, { listener, state }] of [...open]) {
      if (wanted.get(key)?.state === state) continue
      open.delete(key)
      listener.close()
      for (const connection of [...listener.connections]) connection.drain()
    }
    await convergeAddresses(wanted)
    let failed = false
    for (const [key, listener] of wanted) {
      if (open.has(key) || stopped) continue
      try {
        open.set(key, { listener: await listenFor(listener), state: listener.state, closing: false })
        problems.delete(key)
      } catch (error) {
        failed = true
        report(key, `${listener.state.route.service}: ${messageOf(error)}`)
      }
    }
    for (const key of [...problems]) if (!key.startsWith('claim ') && !wanted.has(key)) problems.delete(key)
    if (failed && !stopped) retryTimer = deps.clock.setTimer(BIND_RETRY_MS, () => void change())
  }

  const wantedListeners = (): Map<string, Wanted> => {
    const wanted = new Map<string, Wanted>()
    for (const key of [...states.keys()].sort()) {
      const state = states.get(key) as RouteState
      const { route } = state
      const claim = (address: string, port: number) => {
        const place = `${route.protocol} ${address} ${port}`
        const other = wanted.get(place)
        if (other === undefined) wanted.set(place, { address, port, protocol: route.protocol, state })
        else report(`claim ${place} ${key}`, `port ${port} is published by ${other.state.route.service} and by ${route.service}`)
      }
      for (const port of route.publishedPorts) claim(deps.address, port)
      const address = addresses.get(route.service)
      if (address !== undefined) claim(address, route.containerPort)
    }
    return wanted
  }

  const convergeAddresses = async (wanted: ReadonlyMap<string, Wanted>): Promise<void> => {
    const used = new Set(
      [...addresses.values()].filter((address) => [...wanted.values()].some((entry) => entry.address === address)),
    )
    for (const address of bound) if (!used.has(address)) await tryAddress('remove', address)
    for (const address of used) if (!bound.has(address)) await tryAddress('add', address)
    bound = used
  }

  const tryAddress = async (what: 'add' | 'remove', address: string): Promise<void> => {
    try {
      await deps.virtualAddresses[what](address)
      problems.delete(`address ${address}`)
    } catch (error) {
      report(`address ${address}`, `cannot ${what} virtual address ${address}: ${messageOf(error)}`)
    }
  }

  const report = (key: string, problem: string) => {
    if (problems.has(key)) return
    problems.add(key)
    deps.logger.warn('egress listener is not available', { problem })
    deps.onProblem(problem)
  }

  /** Changes one after another: each sees what the one before it left. */
  const change = (): Promise<void> => {
    changing = changing.then(converge).catch((error: unknown) => {
      deps.logger.error('egress could not follow its routes', { error: messageOf(error) })
    })
    return changing
  }

  return {
    setRoutes(routes) {
      const present = new Set<string>()
      for (const given of routes) {
        const route = { ...given, endpoints: reachableEndpoints(given.endpoints, deps.nodeId, deps.address) }
        const key = routeKey(route.service, route.containerPort)
        present.add(key)
        applyRoute(states, key, route, loads)
      }
      for (const key of [...states.keys()]) {
        if (present.has(key)) continue
        const state = states.get(key) as RouteState
        state.endpoints.clear()
        state.ready = []
        states.delete(key)
      }
      addresses = planVirtualAddresses(routes, deps.meshSlice, addresses)
      return change()
    },
    setLoads(values) {
      loads = { ...loads, ...values }
      for (const state of states.values())
        for (const endpoint of state.endpoints.values()) {
          const load = values[endpoint.instance]
          if (load !== undefined && Number.isFinite(load)) endpoint.loadPercent = load
        }
      if (Object.keys(loads).length > 50_000) loads = { ...values }
    },
    hostsFor(app) {
      const hosts: string[] = []
      for (const [service, address] of addresses) {
        const slash = service.indexOf('/')
        const name = service.slice(slash + 1)
        const owner = service.slice(0, slash)
        if (owner === app) hosts.push(`${name}:${address}`)
        hosts.push(`${name}.${owner}:${address}`, `${name}.${owner}.rubato:${address}`)
      }
      return hosts.sort()
    },
    virtualAddressOf: (service) => addresses.get(service) ?? null,
    async stop() {
      stopped = true
      retryTimer?.cancel()
      const connections = [...open.values()].flatMap(({ listener }) => [...listener.connections])
      await change()
      for (const connection of connections) connection.destroy()
    },
  }
}

function applyRoute(states: Map<string, RouteState>, key: string, route: Route, loads: Readonly<Record<string, number>>): void {
  let state = states.get(key)
  if (state === undefined || state.route.protocol !== route.protocol) {
    state = { route, endpoints: new Map(), ready: [], turn: 0 }
    states.set(key, state)
  }
  state.route = route
  const present = new Set<string>()
  for (const endpoint of route.endpoints) {
    present.add(endpoint.instance)
    const known = state.endpoints.get(endpoint.instance)
    if (known !== undefined) {
      if (known.endpoint.address !== endpoint.address || known.endpoint.gatewayPort !== endpoint.gatewayPort)
        known.ejectedUntilMs = 0
      known.endpoint = endpoint
    } else state.endpoints.set(endpoint.instance, newEndpoint(endpoint, loads[endpoint.instance] ?? null))
  }
  for (const instance of [...state.endpoints.keys()]) if (!present.has(instance)) state.endpoints.delete(instance)
  state.ready = [...state.endpoints.values()].filter(({ endpoint }) => endpoint.state === 'ready')
}

function newEndpoint(endpoint: RouteEndpoint, loadPercent: number | null): Endpoint {
  const track = newTrack()
  return {
    instance: endpoint.instance,
    loadPercent,
    get inFlight() {
      return track.inFlight
    },
    endpoint,
    track,
    ejectedUntilMs: 0,
  }
}
