/**
 * Machines of the `local` provider are processes on this host: what `kill -9` leaves of them at each step, without any engine. The
 * coordinator is the real one, so are the agents.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { MachineView, NodeView } from '../../coordinator/api/schemas.ts'
import { type CoordinatorProcess, startCoordinator } from '../lab/coordinator.ts'
import { until } from '../lab/hosts.ts'

const MACHINES = 2
const HOST = '127.88.0.77'

describe('local machines', { timeout: 300_000 }, () => {
  const dir = mkdtempSync(join(tmpdir(), 'rubato-local-'))
  const home = join(dir, 'coordinator')
  let coordinator: CoordinatorProcess

  beforeAll(async () => {
    coordinator = await startCoordinator({
      dir: home,
      host: HOST,
      port: 18_677,
      catalogPort: 18_678,
      dnsPort: 18_679,
      settings: {
        liveness: { heartbeat: '1s', suspect: '6s', lost: '20s', unknownFor: '60s', reportInterval: '1s' },
        fleet: {
          minNodeAge: '1s',
          downInterval: '1s',
          reapInterval: '1s',
          takeover: '1s',
          entrySettle: '1s',
          maxParallelDrains: 4,
        },
        providers: { here: { kind: 'local', engine: 'process', offerings: { small: { cpus: 1, memory: '256M' } } } },
        pools: [{ name: 'small', provider: 'here', offering: 'small', min: MACHINES, max: MACHINES }],
      },
    })
  })

  afterAll(async () => {
    await coordinator?.stop()
    for (const { pid } of agents()) process.kill(pid, 'SIGKILL')
    rmSync(dir, { recursive: true, force: true })
  })

  it('rows 1, 2, 3, 15: kill -9 of the coordinator while it starts them, and of an agent: each machine has one agent, started again', async () => {
    await until(async () => (await machines()).length === MACHINES, 'the orders', 60_000, 10)
    await killed()
    await until(() => agents().length > 0, 'the first agent', 120_000, 10)
    await killed()
    await until(async () => (await live()) === MACHINES, 'all to join', 120_000)
    const [victim] = agents() as [Agent]
    process.kill(victim.pid, 'SIGKILL')
    await until(
      () => agents().some(({ machine, pid }) => machine === victim.machine && pid !== victim.pid),
      'it to be started again',
    )
    await until(async () => (await live()) === MACHINES, 'all to be live', 120_000)
    expect(new Set(agents().map(({ machine }) => machine)).size).toBe(MACHINES)
    expect(agents().length, 'one agent each').toBe(MACHINES)
    expect((await machines()).length, 'none was made twice').toBe(MACHINES)
  })

  it('rows 1, 8: kill -9 of the coordinator while they are given back: no process, record or folder is left', async () => {
    await coordinator.kill()
    const file = join(home, 'rubato.json')
    writeFileSync(file, readFileSync(file, 'utf8').replace(`"min": ${MACHINES}`, '"min": 0'))
    await coordinator.start()
    await until(async () => (await machines()).some(({ phase }) => phase === 'terminating'), 'one to be given back', 120_000, 10)
    await killed()
    await until(() => agents().length < MACHINES, 'an agent to end', 120_000, 10)
    await killed()
    await until(async () => (await machines()).length === 0, 'all to be confirmed absent', 120_000)
    expect(agents()).toEqual([])
    expect(readdirSync(join(home, 'state', 'local'))).toEqual([])
  })

  /* ---- what the tests are made of ---- */

  async function killed(): Promise<void> {
    await coordinator.kill()
    await coordinator.start()
  }

  interface Agent {
    readonly pid: number
    readonly machine: string
  }

  /** Agents of these machines that run, told by their state directory. */
  function agents(): readonly Agent[] {
    return readdirSync('/proc').flatMap((name): Agent[] => {
      if (!/^\d+$/.test(name)) return []
      try {
        const argv = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0')
        const state = argv[argv.indexOf('--state-dir') + 1] ?? ''
        const isAgent = argv.includes('--config') && state.startsWith(join(home, 'state', 'local'))
        return isAgent ? [{ pid: Number(name), machine: state }] : []
      } catch {
        return [] // It ended meanwhile.
      }
    })
  }

  const machines = async () => (await coordinator.get<{ items: MachineView[] }>('/v1/machines')).items
  const live = async () =>
    (await coordinator.get<{ items: NodeView[] }>('/v1/nodes')).items.filter(({ liveness }) => liveness === 'live').length
})
