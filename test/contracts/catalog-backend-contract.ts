/** What every catalog backend promises; run for the fake and for a real Consul. */
import { expect, it } from 'vitest'
import type { CatalogBackend, Registration } from '../../agent/registrar/catalog-backend.ts'
import { NotFoundError } from '../../shared/errors.ts'

export interface CatalogBackendBed {
  readonly backend: CatalogBackend
  /** State of the service's check as a reader sees it; null when the service is not there. */
  stateOf(id: string, name: string): Promise<string | null>
}

export function catalogBackendContract(make: () => Promise<CatalogBackendBed>): void {
  const registration: Registration = {
    id: 'h1:web:80',
    name: 'web',
    address: '127.0.0.1',
    port: 20001,
    tags: ['blue'],
    meta: { owner: 'ops' },
    check: { kind: 'ttl', ttlMs: 30_000 },
    initialStatus: 'passing',
  }
  it('shows a registered service with its check in the state it began with', async () => {
    const { backend, stateOf } = await make()
    await backend.register(registration)
    expect(await stateOf('h1:web:80', 'web')).toBe('passing')
    expect(await backend.list()).toMatchObject([
      { id: 'h1:web:80', name: 'web', port: 20001, tags: ['blue'], meta: { owner: 'ops' } },
    ])
    await backend.deregister('h1:web:80')
  })
  it('may be told the same thing again', async () => {
    const { backend } = await make()
    await backend.register(registration)
    await backend.register(registration)
    expect(await backend.list()).toHaveLength(1)
    await backend.deregister('h1:web:80')
    await backend.deregister('h1:web:80')
    expect(await backend.list()).toEqual([])
  })
  it('follows heartbeats', async () => {
    const { backend, stateOf } = await make()
    await backend.register(registration)
    await backend.heartbeat('h1:web:80', 'critical', 'probe failed')
    expect(await stateOf('h1:web:80', 'web')).toBe('critical')
    await backend.heartbeat('h1:web:80', 'passing', '')
    expect(await stateOf('h1:web:80', 'web')).toBe('passing')
    await backend.deregister('h1:web:80')
  })
  it('says NotFound for a heartbeat of what it does not hold', async () => {
    const { backend } = await make()
    await expect(backend.heartbeat('h1:none:80', 'passing', '')).rejects.toBeInstanceOf(NotFoundError)
  })
}
