/**
 * Registrations in the node's own Consul agent (1.8 or newer), through its HTTP API. Service and check go in one call, so that
 * no reader ever sees a service without its check. What we registered carries our node's id in its meta data: that is how an
 * earlier life's leftovers are known.
 */
import Consul from 'consul'
import { messageOf, NotFoundError, RetryableError } from '../../shared/errors.ts'
import type { CatalogBackend, Registration, RegistrationCheck } from './catalog-backend.ts'

const OWNER_META = 'rubato-node'

/** The local agent answers in milliseconds; one that hangs must not hang us. */
const CALL_LIMIT_MS = 5_000

export interface ConsulBackendOptions {
  readonly host: string
  readonly port: number
  readonly secure: boolean
  readonly token: string | null
  readonly nodeId: string
}

export function createConsulBackend(options: ConsulBackendOptions): CatalogBackend {
  const consul = new Consul({
    host: options.host,
    port: options.port,
    secure: options.secure,
    // The client's types leave `timeout` out; it is applied to every call.
    defaults: { ...(options.token === null ? {} : { token: options.token }), ...({ timeout: CALL_LIMIT_MS } as object) },
  })
  return {
    async register(registration) {
      await translate('register', () =>
        consul.agent.service.register({
          id: registration.id,
          name: registration.name,
          address: registration.address,
          port: registration.port,
          tags: [...registration.tags],
          meta: { ...registration.meta, [OWNER_META]: options.nodeId },
          ...(registration.check === null ? {} : { check: checkObject(registration) as never }),
        }),
      )
    },
    async deregister(id) {
      try {
        await translate('deregister', () => consul.agent.service.deregister(id))
      } catch (error) {
        if (!(error instanceof NotFoundError)) throw error
      }
    },
    async heartbeat(id, state, note) {
      const check = consul.agent.check
      const call = { id: `service:${id}`, note: note.slice(0, 500) }
      await translate('heartbeat', () =>
        state === 'passing' ? check.pass(call) : state === 'warning' ? check.warn(call) : check.fail(call),
      )
    },
    async list() {
      const services = (await translate('list', () => consul.agent.service.list())) as Readonly<Record<string, ConsulService>>
      return Object.values(services)
        .filter((service) => service.Meta?.[OWNER_META] === options.nodeId)
        .map((service) => ({
          id: service.ID,
          name: service.Service,
          address: service.Address ?? '',
          port: service.Port ?? 0,
          tags: service.Tags ?? [],
          meta: Object.fromEntries(Object.entries(service.Meta ?? {}).filter(([key]) => key !== OWNER_META)),
          check: null,
        }))
    },
  }
}

interface ConsulService {
  readonly ID: string
  readonly Service: string
  readonly Address?: string
  readonly Port?: number
  readonly Tags?: readonly string[] | null
  readonly Meta?: Readonly<Record<string, string>> | null
}

function checkObject(registration: Registration): Record<string, unknown> {
  const check = registration.check as RegistrationCheck
  const common = {
    ...(registration.initialStatus ? { status: registration.initialStatus } : {}),
    ...(registration.deregisterAfter ? { deregistercriticalserviceafter: registration.deregisterAfter } : {}),
  }
  const every = (ms: number) => `${ms}ms`
  const timeout = 'timeoutMs' in check && check.timeoutMs !== undefined ? { timeout: every(check.timeoutMs) } : {}
  switch (check.kind) {
    case 'ttl':
      return { ttl: every(check.ttlMs), ...common }
    case 'http':
      return {
        http: check.url,
        interval: every(check.intervalMs),
        ...(check.method ? { method: check.method } : {}),
        ...(check.tlsSkipVerify ? { tlsskipverify: true } : {}),
        ...timeout,
        ...common,
      }
    case 'tcp':
      return { tcp: check.address, interval: every(check.intervalMs), ...timeout, ...common }
    case 'grpc':
      return { grpc: check.address, grpcusetls: check.useTls, interval: every(check.intervalMs), ...timeout, ...common }
    case 'script':
      return { args: [...check.argv], interval: every(check.intervalMs), ...timeout, ...common }
  }
}

async function translate<T>(what: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    const status = typeof error === 'object' && error !== null && 'statusCode' in error ? Number(error.statusCode) : 0
    // Consul 1.8 answers 500 "Unknown service" or "does not have associated TTL" for an id that it does not hold.
    if (status === 404 || (status === 500 && /unknown|does not have associated/i.test(messageOf(error))))
      throw new NotFoundError(`consul ${what}: ${messageOf(error)}`, error)
    throw new RetryableError(`consul ${what}: ${messageOf(error)}`, { cause: error })
  }
}
