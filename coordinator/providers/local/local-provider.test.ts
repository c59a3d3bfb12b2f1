import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { diskFiles } from '../../../shared/disk-files.ts'
import { loadAgentConfig } from '../../../agent/config.ts'
import { renderUserData } from '../../../installer/cloud-init.ts'
import { type Clock, sleep, systemClock } from '../../../shared/clock.ts'
import { CapacityError, NotFoundError, RetryableError } from '../../../shared/errors.ts'
import { silentLogger } from '../../../shared/logger.ts'
import { describeProviderContract } from '../../../test/contracts/provider-contract.ts'
import { CLUSTER_TAG, type CreateMachine, type Provider } from '../provider.ts'
import { systemProcesses } from '../system-processes.ts'
import { createLocalProvider } from './local-provider.ts'

const AGENT = new URL('../../../test/fakes/local-agent.mjs', import.meta.url).pathname
const NEVER = new AbortController().signal
const TOKEN = 'rbtj_j-1_secretsecretsecret_plain'

function providerAt(stateDir: string, clock: Clock = systemClock()): Provider {
  return createLocalProvider({
    name: 'local',
    stateDir,
    agentCommand: [process.execPath, AGENT],
    offerings: [
      { name: 'small', capacity: { cpuMillis: 500, memoryBytes: 2 ** 29, diskBytes: 2 ** 30, slots: 10 }, priceUsdPerHour: 0.01 },
    ],
    engine: 'process',
    dockerSocket: null,
    processes: systemProcesses(clock, process.env),
    files: diskFiles(),
    removeTree: (path) => rm(path, { recursive: true, force: true }),
    clock,
    logger: silentLogger(),
  })
}

function requestFor(name: string, tags: Readonly<Record<string, string>>): CreateMachine {
  const userData = renderUserData({
    kind: 'settings',
    urls: ['http://127.0.0.1:7600'],
    joinToken: TOKEN,
    labels: { disk: 'ssd' },
  })
  return { name, pool: 'p', offering: 'small', image: '', zone: null, userData, tags, settings: {} }
}

/** Deletes every machine of the tests, whoever made it. */
async function deleteAll(provider: Provider): Promise<void> {
  for (const machine of (await provider.list({}, NEVER)).machines) await provider.delete(machine, NEVER)
}

describeProviderContract('local', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'rubato-local-'))
  const provider = providerAt(directory)
  return {
    provider,
    request: requestFor,
    pause: async () => {},
    cleanup: async () => {
      await deleteAll(provider)
      await rm(directory, { recursive: true, force: true })
    },
  }
})

describe('the local provider', () => {
  let directory: string
  const tags = { [CLUSTER_TAG]: 'c1' }
  const homeOf = (name: string) => join(directory, 'local', name)
  const seen = async (name: string) => {
    const clock = systemClock()
    const path = join(homeOf(name), 'seen.json')
    for (let tries = 0; tries < 200 && !existsSync(path); tries += 1) await sleep(clock, 50)
    return JSON.parse(await readFile(path, 'utf8')) as { argv: string[]; pid: number }
  }
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'rubato-local-'))
  })
  afterEach(async () => {
    await rm(join(homeOf('m-1'), 'fail-destroy'), { force: true })
    await deleteAll(providerAt(directory))
    await rm(directory, { recursive: true, force: true })
  })

  it('I12: the join token is in a file of mode 0600, not among the arguments, and the configuration is one that agents accept', async () => {
    const provider = providerAt(directory)
    const machine = await provider.create(requestFor('m-1', tags), NEVER)
    expect(machine.address).toMatch(/^127\.77\.\d+\.\d+$/)
    const { argv } = await seen('m-1')
    expect(argv.join(' ')).not.toContain('rbtj_')
    expect((await stat(join(homeOf('m-1'), 'join.token'))).mode & 0o777).toBe(0o600)
    const config = await loadAgentConfig({
      argv,
      env: {},
      readFile: diskFiles().read,
      fileMode: async (path) => ((await stat(path).catch(() => null))?.mode ?? 0) & 0o777 || null,
    })
    expect(config.token).toBe(TOKEN)
    expect(config.capacity).toEqual({ cpuMillis: 500, memoryBytes: 2 ** 29, diskBytes: 2 ** 30, slots: 10 })
    expect(config).toMatchObject({
      urls: ['http://127.0.0.1:7600'],
      address: machine.address,
      labels: { disk: 'ssd' },
      registerForeign: false,
    })
  })

  it('agents outlive the coordinator: the next one finds them running under their addresses', async () => {
    const first = await providerAt(directory).create(requestFor('m-1', tags), NEVER)
    const { pid } = await seen('m-1')
    const next = providerAt(directory)
    expect((await next.list(tags, NEVER)).machines).toEqual([{ ...first, state: 'running' }])
    await next.create(requestFor('m-1', tags), NEVER)
    expect((await seen('m-1')).pid).toBe(pid)
    const other = await next.create(requestFor('m-2', tags), NEVER)
    expect(other.address).not.toBe(first.address)
  })

  it('a machine whose agent died is started again by the next list', async () => {
    const first = await providerAt(directory).create(requestFor('m-1', tags), NEVER)
    const { pid } = await seen('m-1')
    await rm(join(homeOf('m-1'), 'seen.json'))
    process.kill(pid, 'SIGKILL')
    const clock = systemClock()
    const next = providerAt(directory)
    for (let tries = 0; tries < 200 && !existsSync(join(homeOf('m-1'), 'seen.json')); tries += 1) {
      await next.list(tags, NEVER)
      await sleep(clock, 50)
    }
    expect((await seen('m-1')).pid).not.toBe(pid)
    expect((await next.list(tags, NEVER)).machines[0]?.id).toBe(first.id)
  })

  it('a machine whose remains cannot be removed stays listed until they can', async () => {
    const provider = providerAt(directory)
    const machine = await provider.create(requestFor('m-1', tags), NEVER)
    await seen('m-1')
    await writeFile(join(homeOf('m-1'), 'fail-destroy'), '')
    await expect(provider.delete(machine, NEVER)).rejects.toThrow('a container is stuck')
    expect((await provider.list(tags, NEVER)).machines[0]?.state).toBe('stopping')
    await expect(provider.create(requestFor('m-1', tags), NEVER)).rejects.toBeInstanceOf(RetryableError)
    await rm(join(homeOf('m-1'), 'fail-destroy'))
    await provider.delete(machine, NEVER)
    expect(existsSync(homeOf('m-1'))).toBe(false)
    await expect(provider.delete(machine, NEVER)).rejects.toBeInstanceOf(NotFoundError)
  })

  it('row 7: a damaged record makes the list incomplete', async () => {
    const provider = providerAt(directory)
    await provider.create(requestFor('m-1', tags), NEVER)
    await writeFile(join(directory, 'local', 'm-9.json'), '{"name":')
    expect(await provider.list(tags, NEVER)).toMatchObject({ complete: false, machines: [{ name: 'm-1' }] })
  })

  it('an offering that this host does not have is a lack of capacity', async () => {
    await expect(providerAt(directory).create({ ...requestFor('m-1', tags), offering: 'huge' }, NEVER)).rejects.toBeInstanceOf(
      CapacityError,
    )
  })
})
