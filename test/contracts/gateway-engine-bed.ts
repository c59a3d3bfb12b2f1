/** The engine under test with what surrounds it: keys, local callers, an upstream; all made anew for each test. */
import { afterEach, beforeEach } from 'vitest'
import type { GatewayEngine } from '../../agent/gateway/engine.ts'
import { type FakeKeyRing, fakeKeyRing } from '../fakes/key-ring.ts'
import { httpUpstream, type Upstream } from './gateway-bed.ts'

/** How the suite makes an engine. Time-outs are short so that dead upstreams do not hold up the suite. */
export interface GatewayBedOptions {
  readonly nodeId: string
  readonly keys: FakeKeyRing
  readonly staleAfterMs: number
  /** Local containers by source address. */
  readonly callers: ReadonlyMap<string, { instance: string; service: string }>
  readonly problems: string[]
  readonly responseTimeoutMs: number
  readonly meshSlice: string
}

export type MakeGateway = (options: GatewayBedOptions) => Promise<GatewayEngine>

export interface EngineBed {
  readonly engine: GatewayEngine
  readonly keys: FakeKeyRing
  readonly callers: Map<string, { instance: string; service: string }>
  readonly problems: string[]
  /** Answers 200 `web`. */
  readonly upstream: Upstream
  /** Of `alice`. */
  readonly credential: string
  /** Run after the test, last first. */
  readonly cleanups: (() => Promise<unknown>)[]
  newEngine(fields?: Partial<GatewayBedOptions>): Promise<GatewayEngine>
  newUpstream(...input: Parameters<typeof httpUpstream>): Promise<Upstream>
  /** The header with that key; alice's unless given. */
  withKey(text?: string): string
}

/** For the describe block that calls it: its parts are there from each test's beginning to its end. */
export function engineBed(make: MakeGateway): EngineBed {
  const cleanups: (() => Promise<unknown>)[] = []
  const newEngine = async (fields: Partial<GatewayBedOptions> = {}) => {
    const made = await make({
      nodeId: 'n-1',
      keys: part().keys,
      staleAfterMs: 60_000,
      callers: part().callers,
      problems: part().problems,
      responseTimeoutMs: 400,
      meshSlice: '127.97.0.0/24',
      ...fields,
    })
    cleanups.push(() => made.stop())
    return made
  }
  const newUpstream = async (...input: Parameters<typeof httpUpstream>) => {
    const made = await httpUpstream(...input)
    cleanups.push(() => made.close())
    return made
  }
  let parts: Partial<Pick<EngineBed, 'engine' | 'upstream'>> & Pick<EngineBed, 'keys' | 'callers' | 'problems' | 'credential'>
  const part = () => parts
  const made = <T>(value: T | undefined): T => {
    if (value === undefined) throw new Error('used before the test began')
    return value
  }

  beforeEach(async () => {
    const keys = fakeKeyRing(Date.now())
    parts = { keys, callers: new Map(), problems: [], credential: keys.issue('alice') }
    parts = { ...parts, upstream: await newUpstream('web') }
    parts = { ...parts, engine: await newEngine() }
  })
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
  })

  return {
    get engine() {
      return made(parts.engine)
    },
    get keys() {
      return parts.keys
    },
    get callers() {
      return parts.callers
    },
    get problems() {
      return parts.problems
    },
    get upstream() {
      return made(parts.upstream)
    },
    get credential() {
      return parts.credential
    },
    cleanups,
    newEngine,
    newUpstream,
    withKey: (text = parts.credential) => `Authorization: Bearer ${text}`,
  }
}

/** The lines of a GET. */
export function get(path = '/', ...extra: string[]): string[] {
  return [`GET ${path} HTTP/1.1`, 'Host: shop', ...extra]
}

/** Waits until `condition` holds; the test's own time limit ends it otherwise. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}
