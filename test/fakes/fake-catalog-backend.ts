/** A catalog backend in memory; passes test/contracts/catalog-backend-contract.ts like the real Consul. Levers: `down`, `wipe`. */
import type { CatalogBackend, Registration } from '../../agent/registrar/catalog-backend.ts'
import { NotFoundError, RetryableError } from '../../shared/errors.ts'

export interface FakeCatalogBackend extends CatalogBackend {
  readonly services: ReadonlyMap<string, Registration & { readonly state: string }>
  /** Every call fails with RetryableError while true. */
  down: boolean
  /** Loses everything, as a Consul that was restarted without its data. */
  wipe(): void
  readonly calls: readonly string[]
}

export function fakeCatalogBackend(): FakeCatalogBackend {
  const services = new Map<string, Registration & { state: string }>()
  const calls: string[] = []
  const fake: FakeCatalogBackend = {
    services,
    calls,
    down: false,
    wipe: () => services.clear(),
    async register(registration) {
      check(`register ${registration.id}`)
      services.set(registration.id, {
        ...registration,
        state: registration.initialStatus ?? (registration.check === null ? 'passing' : 'critical'),
      })
    },
    async deregister(id) {
      check(`deregister ${id}`)
      services.delete(id)
    },
    async heartbeat(id, state) {
      check(`heartbeat ${id}`)
      const service = services.get(id)
      if (service?.check?.kind !== 'ttl') throw new NotFoundError(`no TTL check for ${id}`)
      services.set(id, { ...service, state })
    },
    async list() {
      check('list')
      return [...services.values()].map(({ state: _, ...registration }) => ({ ...registration, check: null }))
    },
  }
  const check = (call: string) => {
    calls.push(call)
    if (fake.down) throw new RetryableError('the catalog does not answer')
  }
  return fake
}
