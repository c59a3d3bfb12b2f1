/**
 * The only way in to an instance: one listener per instance port. HTTP requests are authorized here, on the instance's own node,
 * wherever they come from; what comes through this node's own egress takes the same decision without a second connection.
 */
import type { Clock } from '../../../shared/clock.ts'
import { ConflictError, InputError } from '../../../shared/errors.ts'
import type { Logger } from '../../../shared/logger.ts'
import { type InstanceId, type ServiceId, serviceIdOf } from '../../../shared/model/identity.ts'
import type { AccessPolicy } from '../../../shared/model/unit.ts'
import type { IngressFlow, IngressPort } from '../engine.ts'
import type { KeyRing } from '../key-ring.ts'
import { authorize, authorizeConnection, type RingFacts } from '../policy.ts'
import type { ProofChecker } from '../proof.ts'
import { type CredentialVerifier, presentedCredential } from '../verifier.ts'
import { type Forward, plainAddress } from './http-exchange.ts'
import type { Refusal, RequestHead } from './http-head.ts'
import type { Connection, Listener } from './listener.ts'
import { newTrack, takeAnswers, type Track } from './track.ts'
import type { RelayDecision } from './tcp-relay.ts'
import type { ListenerFactory } from './listener-factory.ts'

export interface IngressDeps {
  readonly address: string
  readonly portRange: { readonly from: number; readonly to: number }
  readonly keys: KeyRing
  readonly verify: CredentialVerifier
  readonly proofs: ProofChecker
  readonly clock: Clock
  readonly logger: Logger
  readonly staleAfterMs: () => number
  readonly listeners: ListenerFactory
  /** A port that an app publishes, or will publish once it is free: no instance port is put there. */
  readonly isPublished: (port: number) => boolean
  /** Local container with this source address. */
  readonly callerOf: (address: string) => ServiceId | null
}

/** Who stands behind a request that this node's own egress brings. */
export interface Vouched {
  readonly caller: ServiceId | null
}

export interface Ingresses {
  open(port: IngressPort): Promise<number>
  close(instance: InstanceId, drainMs: number): Promise<void>
  inFlight(instance: InstanceId): number
  takeFlows(): readonly IngressFlow[]
  /** Decides a request for an instance of this node; null when there is no such ingress (any more). */
  decideFor(
    instance: InstanceId,
    containerPort: number,
    head: RequestHead,
    peer: string,
    vouched: Vouched,
  ): Forward | Refusal | null
  relayFor(instance: InstanceId, containerPort: number, vouched: Vouched): RelayDecision | null
  /** Where datagrams for an instance of this node go, when its policy lets everybody call. */
  datagramTarget(
    instance: InstanceId,
    containerPort: number,
  ): { readonly address: string; readonly port: number; readonly track: Track } | null
  stop(): Promise<void>
}

interface Entry {
  port: IngressPort
  readonly service: ServiceId
  readonly track: Track
  gatewayPort: number
  listeners: Listener[]
  closing: boolean
}

interface InstanceState {
  readonly track: Track
  readonly entries: Map<number, Entry>
}

const UNREACHABLE: Refusal = {
  kind: 'refuse',
  status: 502,
  code: 'upstream-unreachable',
  detail: 'The instance does not accept connections.',
}
const AMBIGUOUS: Refusal = {
  kind: 'refuse',
  status: 400,
  code: 'duplicate-credential',
  detail: 'Two different keys were presented.',
}

export function createIngresses(deps: IngressDeps): Ingresses {
  const instances = new Map<InstanceId, InstanceState>()
  const ring: RingFacts = {
    verify: deps.verify,
    get confirmedAtMs() {
      return deps.keys.confirmedAtMs
    },
  }
  let nextPort = deps.portRange.from

  const policyOf = (entry: Entry): AccessPolicy => deps.keys.policy(entry.service) ?? entry.port.access

  const decide = (entry: Entry, head: RequestHead, peer: string, vouched: Vouched | null): Forward | Refusal => {
    const nowMs = deps.clock.now()
    const presented = presentedCredential(head.authorization, head.apiKey)
    if (presented.ambiguous) return AMBIGUOUS
    let caller: ServiceId | null = null
    let trustedHop = false
    if (vouched !== null) caller = vouched.caller
    else {
      const proven = head.proof === null ? null : deps.proofs.check(head.proof, entry.port.instance, nowMs)
      if (proven !== null) {
        trustedHop = true
        caller = proven === '' ? null : proven
      } else caller = deps.callerOf(peer)
    }
    const verdict = authorize(
      { method: head.method, path: head.path, credential: presented.credential, callerService: caller, service: entry.service },
      policyOf(entry),
      ring,
      nowMs,
      deps.staleAfterMs(),
    )
    if (!verdict.allow) {
      entry.track.denied += 1
      return { kind: 'refuse', status: verdict.status, code: verdict.code, detail: verdict.detail }
    }
    let lines = forwardedLines(head, peer, trustedHop)
    if (presented.authorization !== null) lines += `authorization: ${presented.authorization}\r\n`
    if (presented.apiKey !== null) lines += `x-api-key: ${presented.apiKey}\r\n`
    if (verdict.caller !== null) lines += `x-rubato-caller: ${headerText(verdict.caller)}\r\n`
    const { targetAddress, targetPort } = entry.port
    return {
      kind: 'forward',
      address: targetAddress,
      port: targetPort,
      addedLines: lines,
      tracks: [entry.track],
      retry: () => UNREACHABLE,
    }
  }

  const relayTo = (entry: Entry, caller: ServiceId | null): RelayDecision => {
    const facts = { callerService: caller, service: entry.service }
    if (!authorizeConnection(facts, policyOf(entry), deps.keys.confirmedAtMs, deps.clock.now(), deps.staleAfterMs())) {
      entry.track.denied += 1
      return { kind: 'deny' }
    }
    const { targetAddress, targetPort } = entry.port
    return {
      kind: 'relay',
      target: { address: targetAddress, port: targetPort, preamble: null, tracks: [entry.track], retry: () => null },
    }
  }

  const bind = (entry: Entry, port: number): Promise<Listener> => {
    if (entry.port.protocol === 'http')
      return deps.listeners.http(deps.address, port, {
        decide: (head, peer) => decide(entry, head, peer, null),
        get closing() {
          return entry.closing
        },
      })
    if (entry.port.protocol === 'udp') return deps.listeners.udp(deps.address, port, () => datagramTargetOf(entry))
    return deps.listeners.tcp(deps.address, port, {
      open(peer) {
        const caller = deps.callerOf(peer)
        if (caller !== null || policyOf(entry).public) return relayTo(entry, caller)
        return { kind: 'undecided' }
      },
      openWith(_peer, proof) {
        const caller = proof === null ? null : deps.proofs.check(proof, entry.port.instance, deps.clock.now())
        return relayTo(entry, caller === '' ? null : caller)
      },
      stripProof: true,
    })
  }

  const bindWanted = async (entry: Entry): Promise<number> => {
    const { from, to } = deps.portRange
    const wanted = entry.port.gatewayPort
    if (wanted !== null) {
      entry.listeners.push(await bind(entry, wanted))
      return wanted
    }
    for (let tries = 0; tries <= to - from; tries += 1) {
      const port = nextPort
      nextPort = nextPort >= to ? from : nextPort + 1
      if (deps.isPublished(port)) continue
      try {
        entry.listeners.push(await bind(entry, port))
        return port
      } catch (error) {
        if (!(error instanceof ConflictError)) throw error
      }
    }
    throw new ConflictError(`no free gateway port between ${from} and ${to}`)
  }

  const datagramTargetOf = (entry: Entry) =>
    policyOf(entry).public ? { address: entry.port.targetAddress, port: entry.port.targetPort, track: entry.track } : null

  const entryOf = (instance: InstanceId, containerPort: number): Entry | null => {
    const entry = instances.get(instance)?.entries.get(containerPort)
    return entry === undefined || entry.closing || entry.gatewayPort === 0 ? null : entry
  }

  const closeEntry = (entry: Entry) => {
    entry.closing = true
    for (const listener of entry.listeners) {
      listener.close()
      for (const connection of [...listener.connections]) connection.drain()
    }
  }

  return {
    async open(port) {
      if (port.gatewayPort !== null && (port.gatewayPort < 1 || port.gatewayPort > 65_535))
        throw new InputError(`gateway port ${port.gatewayPort} is none`)
      let state = instances.get(port.instance)
      if (state === undefined) {
        state = { track: newTrack(true), entries: new Map() }
        instances.set(port.instance, state)
      }
      const known = state.entries.get(port.containerPort)
      if (known !== undefined && known.gatewayPort !== 0 && keeps(known, port)) {
        known.port = port
        return known.gatewayPort
      }
      if (known !== undefined) closeEntry(known)
      const entry: Entry = {
        port,
        service: serviceIdOf(port.instance),
        track: state.track,
        gatewayPort: 0,
        listeners: [],
        closing: false,
      }
      state.entries.set(port.containerPort, entry)
      try {
        const bound = await bindWanted(entry)
        for (const hostPort of port.hostPorts) entry.listeners.push(await bind(entry, hostPort))
        if (state.entries.get(port.containerPort) !== entry)
          throw new ConflictError('the ingress was closed while it was being opened')
        entry.gatewayPort = bound
        return bound
      } catch (error) {
        closeEntry(entry)
        if (state.entries.get(port.containerPort) === entry) state.entries.delete(port.containerPort)
        throw error
      }
    },
    async close(instance, drainMs) {
      const state = instances.get(instance)
      if (state === undefined) return
      const entries = [...state.entries.values()]
      state.entries.clear()
      for (const entry of entries) closeEntry(entry)
      await whenIdle(state.track, drainMs, deps.clock)
      for (const entry of entries) for (const listener of entry.listeners) destroyAll(listener.connections)
      if (state.entries.size === 0 && instances.get(instance) === state) instances.delete(instance)
    },
    inFlight: (instance) => instances.get(instance)?.track.inFlight ?? 0,
    takeFlows() {
      const flows: IngressFlow[] = []
      for (const [instance, { track }] of instances) {
        const { inFlight, requests, errors, denied, rxBytes, txBytes } = track
        const latency = takeAnswers(track)
        flows.push({
          instance,
          inFlight,
          requests,
          errors,
          denied,
          rxBytes,
          txBytes,
          ...(latency === null ? {} : { latency }),
        })
        track.requests = 0
        track.errors = 0
        track.denied = 0
        track.rxBytes = 0
        track.txBytes = 0
      }
      return flows
    },
    decideFor(instance, containerPort, head, peer, vouched) {
      const entry = entryOf(instance, containerPort)
      return entry === null ? null : decide(entry, head, peer, vouched)
    },
    relayFor(instance, containerPort, vouched) {
      const entry = entryOf(instance, containerPort)
      return entry === null ? null : relayTo(entry, vouched.caller)
    },
    datagramTarget(instance, containerPort) {
      const entry = entryOf(instance, containerPort)
      return entry === null ? null : datagramTargetOf(entry)
    },
    async stop() {
      for (const state of instances.values())
        for (const entry of state.entries.values()) {
          closeEntry(entry)
          for (const listener of entry.listeners) destroyAll(listener.connections)
        }
      instances.clear()
    },
  }
}

/** `X-Forwarded-*` of a request: a gateway's words are kept, everybody else's replaced by what we see. */
export function forwardedLines(head: RequestHead, peer: string, trustedHop: boolean): string {
  if (trustedHop && head.forwardedFor !== null)
    return `x-forwarded-for: ${head.forwardedFor}\r\nx-forwarded-proto: ${head.forwardedProto ?? 'http'}\r\nx-forwarded-host: ${head.forwardedHost ?? head.host}\r\n`
  return `x-forwarded-for: ${plainAddress(peer)}\r\nx-forwarded-proto: http\r\nx-forwarded-host: ${head.host}\r\n`
}

function keeps(entry: Entry, port: IngressPort): boolean {
  return (
    entry.port.protocol === port.protocol &&
    (port.gatewayPort === null || port.gatewayPort === entry.gatewayPort) &&
    entry.port.hostPorts.join() === port.hostPorts.join()
  )
}

function headerText(text: string): string {
  return /^[!-~]+$/.test(text) ? text : encodeURIComponent(text)
}

function destroyAll(connections: ReadonlySet<Connection>): void {
  for (const connection of [...connections]) connection.destroy()
}

function whenIdle(track: Track, limitMs: number, clock: Clock): Promise<void> {
  if (track.inFlight === 0 || limitMs <= 0) return Promise.resolve()
  return new Promise((resolve) => {
    const timer = clock.setTimer(limitMs, resolve)
    track.onIdle = () => {
      timer.cancel()
      resolve()
    }
  })
}
