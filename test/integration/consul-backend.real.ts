/** The registrar's Consul backend against a real Consul, by the contract that the fake passes too. */
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe } from 'vitest'
import { createConsulBackend } from '../../agent/registrar/consul-backend.ts'
import { catalogBackendContract } from '../contracts/catalog-backend-contract.ts'
import { type ConsulServer, startConsul } from '../lab/consul.ts'
import { isRootOnDebian } from '../lab/packages.ts'

describe.skipIf(!isRootOnDebian())('Consul backend (real Consul)', () => {
  let consul: ConsulServer
  beforeAll(async () => {
    const started = await startConsul(mkdtempSync(join(tmpdir(), 'rubato-consul-')), '127.0.0.1', 18500)
    if (started === null) throw new Error('no Consul binary could be installed')
    consul = started
  })
  afterAll(() => consul?.stop())

  catalogBackendContract(async () => ({
    backend: createConsulBackend({ host: consul.host, port: consul.httpPort, secure: false, token: null, nodeId: 'node-a' }),
    async stateOf(id, name) {
      const entries = (await consul.get(`/health/service/${name}`)) as {
        Service: { ID: string }
        Checks: { CheckID: string; Status: string }[]
      }[]
      const entry = entries.find((candidate) => candidate.Service.ID === id)
      return entry?.Checks.find((check) => check.CheckID === `service:${id}`)?.Status ?? null
    },
  }))
})
