import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../../shared/clock.ts'
import { CapacityError, NotFoundError, QuotaError, RetryableError, RubatoError } from '../../../shared/errors.ts'
import { silentLogger } from '../../../shared/logger.ts'
import { describeProviderContract } from '../../../test/contracts/provider-contract.ts'
import { CLUSTER_TAG, type CreateMachine, type Provider } from '../provider.ts'
import { systemProcesses } from '../system-processes.ts'
import { createExecProvider } from './exec-provider.ts'

const CLOUD = new URL('../../../test/fakes/exec-cloud.mjs', import.meta.url).pathname
const NEVER = new AbortController().signal

function requestFor(name: string, tags: Readonly<Record<string, string>>): CreateMachine {
  return { name, pool: 'p', offering: 'small', image: 'debian', zone: null, userData: '#!/bin/sh\ntrue\n', tags, settings: {} }
}

function providerAt(path: string, createMs = 30_000): Provider {
  return createExecProvider({
    name: 'sample',
    command: [process.execPath, CLOUD, path],
    offerings: [
      {
        name: 'small',
        capacity: { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 2 ** 30, slots: 10 },
        priceUsdPerHour: 0.01,
      },
    ],
    processes: systemProcesses(systemClock(), process.env),
    logger: silentLogger(),
    timeoutsMs: { create: createMs, delete: 30_000, list: 30_000 },
  })
}

describeProviderContract('exec with the sample command', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'rubato-exec-'))
  return {
    provider: providerAt(join(directory, 'cloud.json')),
    request: requestFor,
    pause: async () => {},
    cleanup: () => rm(directory, { recursive: true, force: true }),
  }
})

describe('the exec provider', () => {
  let directory: string
  let path: string
  const tags = { [CLUSTER_TAG]: 'c1' }
  const setFault = async (fault: string, more: object = {}) =>
    writeFile(
      path,
      JSON.stringify({
        machines: [],
        deleting: [],
        ...JSON.parse(await readFile(path, 'utf8').catch(() => '{}')),
        fault,
        ...more,
      }),
    )
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'rubato-exec-'))
    path = join(directory, 'cloud.json')
  })
  afterEach(() => rm(directory, { recursive: true, force: true }))

  it.each([
    ['html', RetryableError],
    ['truncated', RetryableError],
    ['unknown-state', RetryableError],
    ['flood', RetryableError],
    ['exit:10', CapacityError],
    ['exit:11', QuotaError],
    ['exit:12', NotFoundError],
    ['exit:13', RetryableError],
    ['exit:1', RubatoError],
  ])('§3 Cloud: a create that answers %s is understood as such, and repeating it gives one machine', async (fault, expected) => {
    await setFault(fault)
    const provider = providerAt(path)
    const error = await provider.create(requestFor('c1-m', tags), NEVER).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(expected)
    expect((error as Error).message).not.toContain('secretsecret')
    if (fault === 'exit:13') expect((error as RetryableError).retryAfterMs).toBe(1500)
    await provider.create(requestFor('c1-m', tags), NEVER)
    expect((await provider.list(tags, NEVER)).machines).toHaveLength(1)
  })

  it('row 3: a create whose reply was lost is found again by its name', async () => {
    await setFault('lost-reply')
    const provider = providerAt(path)
    await expect(provider.create(requestFor('c1-m', tags), NEVER)).rejects.toBeInstanceOf(RetryableError)
    expect((await provider.list(tags, NEVER)).machines.map((machine) => machine.name)).toEqual(['c1-m'])
    expect((await provider.create(requestFor('c1-m', tags), NEVER)).id).toBe('vm-1')
  })

  it('ends a command that takes too long; the outcome is unknown', async () => {
    await setFault('hang')
    await expect(providerAt(path, 400).create(requestFor('c1-m', tags), NEVER)).rejects.toThrow('too long')
  })

  it('hands user data over on stdin alone', async () => {
    await providerAt(path).create({ ...requestFor('c1-m', tags), userData: '#!/bin/sh\n# rbtj_x' }, NEVER)
    const kept = JSON.parse(await readFile(path, 'utf8')) as { lastArgv: string[]; lastInput: { userData: string } }
    expect(kept.lastArgv).toEqual([path, 'create'])
    expect(kept.lastInput.userData).toContain('rbtj_x')
  })

  it('§3 Cloud: foreign tags are ignored, twice the same id is one, rubbish makes the list incomplete, odd dates are none', async () => {
    await setFault('', {
      fault: null,
      extra: [
        { id: 'a', name: 'a', state: 'running', createdAt: 'yesterday' },
        { id: 'a', name: 'a', state: 'running' },
        { id: 'b', name: 'b', state: 'PAUSED', tags: { [CLUSTER_TAG]: 'other' } },
        { id: 'c', name: 'c', state: 'PAUSED', tags, interruptionAt: 0 },
      ],
    })
    const provider = providerAt(path)
    const list = await provider.list(tags, NEVER)
    expect(list.machines.map(({ id, state, createdAtMs }) => [id, state, createdAtMs])).toEqual([
      ['a', 'running', null],
      ['c', 'unknown', null],
    ])
    expect(list.complete).toBe(true)
    expect(list.machines.some((machine) => machine.interruptionAtMs !== undefined)).toBe(false)
    await setFault('', { fault: null, extra: [{ id: 7 }] })
    expect(await provider.list(tags, NEVER)).toEqual({ complete: false, machines: [] })
  })

  it('a command that is not there is a fault of the setup, not of the cloud', async () => {
    const provider = createExecProvider({
      name: 'x',
      command: ['/nonexistent/cmd'],
      offerings: [],
      processes: systemProcesses(systemClock(), {}),
      logger: silentLogger(),
      timeoutsMs: { create: 1000, delete: 1000, list: 1000 },
    })
    await expect(provider.list(tags, NEVER)).rejects.toThrow('cannot be started')
  })
})
