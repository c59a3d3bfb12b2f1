/** The docker runtime on a real engine of its own. Needs root, docker.io, iptables and busybox-static. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createDockerRuntime, destroyDockerNode, type DockerRuntime } from '../../agent/runtime/docker/docker-runtime.ts'
import type { CreateContainer } from '../../agent/runtime/runtime.ts'
import { sleep, systemClock } from '../../shared/clock.ts'
import { ConflictError, InputError, NotFoundError, RetryableError, UnavailableError } from '../../shared/errors.ts'
import { silentLogger } from '../../shared/logger.ts'
import { aContainerSpec, aUnitSpec } from '../builders/specs.ts'
import { realAdvance, runtimeContract } from '../contracts/runtime-contract.ts'
import { type LabDockerd, startDockerd } from '../lab/dockerd.ts'
import { importImage } from '../lab/images.ts'

const IMAGE = 'lab/busybox:1'
const clock = systemClock()
const base = mkdtempSync(join(tmpdir(), 'rb-docker-'))
let engine: LabDockerd

beforeAll(async () => {
  engine = await startDockerd(base)
  await importImage(engine.socket, IMAGE, ['/bin/sh'])
})
afterAll(async () => {
  await engine?.stop()
  rmSync(base, { recursive: true, force: true })
})

const open = (nodeId: string, clusterId = 'lab') =>
  createDockerRuntime({ socketPath: engine.socket, clusterId, nodeId, clock, logger: silentLogger() })

const requestOf = (fields: Partial<CreateContainer> = {}): CreateContainer => ({
  instance: 'shop/web/1/1',
  specHash: 'hash-1',
  spec: aContainerSpec({
    image: IMAGE,
    command: ['/bin/sh', '-c', 'mkdir -p /www; echo hello >/www/index.html; exec httpd -f -p 8080 -h /www'],
  }),
  unit: aUnitSpec(),
  ports: [{ containerPort: 8080, protocol: 'http' }],
  sharesNetworkOf: null,
  extraEnvironment: {},
  extraHosts: ['other:10.1.2.3'],
  ...fields,
})

const connects = (host: string, port: number) =>
  new Promise<boolean>((resolve) => {
    const socket = connect({ host, port, timeout: 1_000 }, () => done(true))
    const done = (result: boolean) => {
      socket.destroy()
      resolve(result)
    }
    socket.on('error', () => done(false))
    socket.on('timeout', () => done(false))
  })

runtimeContract('docker', async () => {
  const runtime = await open('contract')
  const others: DockerRuntime[] = []
  return {
    runtime,
    async reopen() {
      const other = await open('contract')
      others.push(other)
      return other
    },
    clock,
    advance: realAdvance(clock),
    image: IMAGE,
    runsCommands: true,
    close: () => runtime.destroy(),
  }
})

describe('the docker runtime on a real engine', () => {
  it('each node has its own network, kept over restarts; its containers are reached by address, nothing is published', async () => {
    const a = await open('a')
    const b = await open('b')
    try {
      expect(a.network.subnet).not.toBe(b.network.subnet)
      expect((await open('a')).network).toEqual(a.network)
      const id = await a.create(requestOf())
      await a.start(id)
      const other = await a.create(requestOf({ instance: 'shop/web/2/1' }))
      await a.start(other)
      const foreign = await b.create(requestOf({ instance: 'shop/web/3/1' }))
      await b.start(foreign)
      const address = (await a.list()).find((container) => container.id === id)?.address ?? ''
      const sleepUntil = Date.now() + 5_000
      while (!(await connects(address, 8080)) && Date.now() < sleepUntil) await sleep(clock, 100)
      expect(await connects(address, 8080)).toBe(true)
      // Neighbours on the same network and on another one do not reach it.
      expect(await a.exec(other, ['sh', '-c', `nc -w 1 ${address} 8080 </dev/null`], 5_000)).not.toBe(0)
      expect(await b.exec(foreign, ['sh', '-c', `nc -w 1 ${address} 8080 </dev/null`], 5_000)).not.toBe(0)
      expect(await a.exec(id, ['grep', '-q', '10.1.2.3', '/etc/hosts'], 5_000)).toBe(0)
      expect(await a.foreign()).toEqual([])
      const shown = execFileSync('docker', ['-H', `unix://${engine.socket}`, 'port', id], { encoding: 'utf8' })
      expect(shown.trim()).toBe('')
    } finally {
      await a.destroy()
      await b.destroy()
    }
  })

  it('destroying a node makes nothing: no network appears, however often it is asked', async () => {
    const networks = () =>
      execFileSync('docker', ['-H', `unix://${engine.socket}`, 'network', 'ls', '--format', '{{.Name}}'], { encoding: 'utf8' })
    const options = { socketPath: engine.socket, clusterId: 'lab', nodeId: 'gone', clock, logger: silentLogger() }
    await destroyDockerNode(options)
    expect(networks()).not.toContain('rubato-gone')
    const runtime = await open('gone')
    await runtime.start(await runtime.create(requestOf()))
    expect(networks()).toContain('rubato-gone')
    await destroyDockerNode(options)
    expect(networks()).not.toContain('rubato-gone')
    expect(await runtime.list()).toEqual([])
  })

  it('row 45: a neighbour host that routes to the container network is dropped', async () => {
    const runtime = await open('shield')
    const ns = `rbn${process.pid}`
    try {
      expect(runtime.shielded).toBe(true)
      const id = await runtime.create(requestOf())
      await runtime.start(id)
      const address = (await runtime.list())[0]?.address ?? ''
      execFileSync('ip', ['netns', 'add', ns])
      execFileSync('ip', ['link', 'add', 'rbnbr0', 'type', 'veth', 'peer', 'name', 'rbnbr1', 'netns', ns])
      execFileSync('ip', ['addr', 'add', '10.199.77.1/24', 'dev', 'rbnbr0'])
      execFileSync('ip', ['link', 'set', 'rbnbr0', 'up'])
      execFileSync('ip', ['-n', ns, 'addr', 'add', '10.199.77.2/24', 'dev', 'rbnbr1'])
      execFileSync('ip', ['-n', ns, 'link', 'set', 'rbnbr1', 'up'])
      execFileSync('ip', ['-n', ns, 'route', 'add', 'default', 'via', '10.199.77.1'])
      const reach = () => {
        try {
          execFileSync('nsenter', [`--net=/run/netns/${ns}`, 'busybox', 'nc', '-w', '2', address, '8080'], {
            input: '',
            stdio: 'pipe',
          })
          return true
        } catch {
          return false
        }
      }
      const until = Date.now() + 5_000
      while (!(await connects(address, 8080)) && Date.now() < until) await sleep(clock, 100)
      expect(reach()).toBe(false)
      // The drop is ours: without our rule (and with an engine that lets forwarding be) it would get through.
      execFileSync('iptables', [
        '-t',
        'raw',
        '-D',
        'PREROUTING',
        '-d',
        runtime.network.subnet,
        '!',
        '-i',
        runtime.network.bridge,
        '-m',
        'comment',
        '--comment',
        runtime.network.name,
        '-j',
        'DROP',
      ])
      execFileSync('iptables', ['-I', 'FORWARD', '-i', 'rbnbr0', '-j', 'ACCEPT'])
      expect(reach()).toBe(true)
      execFileSync('iptables', ['-D', 'FORWARD', '-i', 'rbnbr0', '-j', 'ACCEPT'])
    } finally {
      try {
        execFileSync('ip', ['link', 'del', 'rbnbr0'], { stdio: 'ignore' })
        execFileSync('ip', ['netns', 'del', ns], { stdio: 'ignore' })
      } catch {
        // Never made.
      }
      await runtime.destroy()
    }
    expect(execFileSync('iptables', ['-t', 'raw', '-S'], { encoding: 'utf8' })).not.toContain('rubato-shield')
  })

  it('files are there before the first instruction runs, with their mode, also under a read-only root', async () => {
    const runtime = await open('files')
    try {
      for (const readOnlyRootfs of [false, true]) {
        const id = await runtime.create(
          requestOf({
            specHash: `ro-${readOnlyRootfs}`,
            spec: aContainerSpec({
              image: IMAGE,
              readOnlyRootfs,
              command: ['/bin/sh', '-c', 'cat /run/secrets/token; stat -c %a /run/secrets/token; sleep 60'],
              files: [
                {
                  target: '/run/secrets/token',
                  mode: 0o440,
                  contentBase64: Buffer.from('hush\n').toString('base64'),
                  secret: true,
                },
              ],
            }),
          }),
        )
        await runtime.start(id)
        await sleep(clock, 700)
        const lines: string[] = []
        for await (const line of runtime.logs(id, { follow: false, tail: 10 }, new AbortController().signal))
          lines.push(line.text)
        expect(lines).toEqual(['hush', '440'])
      }
    } finally {
      await runtime.destroy()
    }
  })

  it('limits, volumes, user and environment reach the container; a named volume outlives it', async () => {
    const runtime = await open('limits')
    try {
      const request = (specHash: string, script: string) =>
        requestOf({
          specHash,
          spec: aContainerSpec({
            image: IMAGE,
            command: ['/bin/sh', '-c', `${script}; sleep 60`],
            limits: { memoryBytes: 64 * 2 ** 20, cpuMillis: 500, pids: 50 },
            reservations: { cpuMillis: 250, memoryBytes: 32 * 2 ** 20 },
            mounts: [
              { kind: 'volume', source: 'shop_data', target: '/data', readOnly: false },
              { kind: 'tmpfs', source: '', target: '/scratch', readOnly: false, sizeBytes: 2 ** 20 },
            ],
            environment: { GREETING: 'a=b c' },
          }),
        })
      const first = await runtime.create(
        request('one', 'echo kept >/data/file; mount | grep -q "on /scratch type tmpfs" && touch /scratch/x'),
      )
      await runtime.start(first)
      await sleep(clock, 500)
      expect(await runtime.exec(first, ['sh', '-c', 'test -e /scratch/x && test "$GREETING" = "a=b c"'], 5_000)).toBe(0)
      const second = await runtime.create(request('two', 'true'))
      await runtime.start(second)
      expect(await runtime.exec(second, ['grep', '-q', 'kept', '/data/file'], 5_000)).toBe(0)
      await runtime.remove(second)
      execFileSync('docker', ['-H', `unix://${engine.socket}`, 'volume', 'rm', 'shop_data'])
    } finally {
      await runtime.destroy()
    }
  })

  it('a name that someone else took is a ConflictError; a missing image NotFoundError; a bad option InputError', async () => {
    const runtime = await open('errors')
    const docker = (...args: string[]) =>
      execFileSync('docker', ['-H', `unix://${engine.socket}`, ...args], { encoding: 'utf8' }).trim()
    try {
      docker('create', '--name', 'shop.taken.1.1', '--network', 'none', IMAGE)
      await expect(runtime.create(requestOf({ instance: 'shop/taken/1/1' }))).rejects.toBeInstanceOf(ConflictError)
      expect((await runtime.foreign()).map((container) => container.name)).toEqual(['shop.taken.1.1'])
      docker('rm', 'shop.taken.1.1')
      await expect(runtime.create(requestOf({ spec: aContainerSpec({ image: 'no/such:1' }) }))).rejects.toBeInstanceOf(
        NotFoundError,
      )
      expect(await runtime.hasImage('no/such:1')).toBe(false)
      expect(await runtime.hasImage(IMAGE)).toBe(true)
      const pull = runtime.pull(
        '127.0.0.1:1/no/such:1',
        { auth: { username: 'u', password: 'p', server: '127.0.0.1:1' } },
        new AbortController().signal,
      )
      await expect(pull).rejects.toBeInstanceOf(RetryableError)
      const bad = requestOf({ spec: aContainerSpec({ image: IMAGE, limits: { memoryBytes: 1 } }) })
      await expect(runtime.create(bad)).rejects.toBeInstanceOf(InputError)
      const id = await runtime.create(requestOf({ spec: aContainerSpec({ image: IMAGE, entrypoint: ['/no/such'] }) }))
      await expect(runtime.start(id)).rejects.toThrow(/no such file/)
    } finally {
      await runtime.destroy()
    }
  })

  it('an out-of-memory kill is told as such', async () => {
    const runtime = await open('oom')
    try {
      const id = await runtime.create(
        requestOf({
          spec: aContainerSpec({
            image: IMAGE,
            limits: { memoryBytes: 16 * 2 ** 20 },
            command: ['/bin/sh', '-c', 'tail /dev/zero'],
          }),
        }),
      )
      await runtime.start(id)
      const until = Date.now() + 20_000
      while ((await runtime.list())[0]?.state === 'running' && Date.now() < until) await sleep(clock, 200)
      expect((await runtime.list())[0]).toMatchObject({ state: 'exited', exitCode: 137, oomKilled: true })
    } finally {
      await runtime.destroy()
    }
  })

  it('50 containers are measured for at most 2 % of a core at one look every two seconds', async () => {
    const runtime = await open('many')
    try {
      const ids: string[] = []
      const count = 12
      for (let i = 1; i <= count; i += 1) {
        const id = await runtime.create(
          requestOf({ instance: `shop/web/${i}/1`, spec: aContainerSpec({ image: IMAGE, command: ['sleep', '300'] }) }),
        )
        await runtime.start(id)
        ids.push(id)
      }
      await runtime.stats(ids)
      const before = process.cpuUsage()
      const rounds = 20
      for (let round = 0; round < rounds; round += 1) expect(await runtime.stats(ids)).toHaveLength(count)
      const { user, system } = process.cpuUsage(before)
      const msPerContainer = (user + system) / 1000 / rounds / count
      // 50 containers each 2 s: share = 50 · ms / 2000.
      expect((50 * msPerContainer) / 2000).toBeLessThan(0.02)
    } finally {
      await runtime.destroy()
    }
  })

  it('row 19: an engine that hangs or died gives UnavailableError; row 20: its events come back with a resync', async () => {
    const own = mkdtempSync(join(tmpdir(), 'rb-docker-'))
    let second = await startDockerd(own)
    const runtime = await createDockerRuntime({
      socketPath: second.socket,
      clusterId: 'lab',
      nodeId: 'hang',
      clock,
      logger: silentLogger(),
    })
    const abort = new AbortController()
    const seen: string[] = []
    const following = (async () => {
      for await (const event of runtime.events(abort.signal)) seen.push(event.kind)
    })()
    try {
      await runtime.list()
      process.kill(second.pid, 'SIGSTOP')
      await expect(runtime.list()).rejects.toBeInstanceOf(UnavailableError)
      process.kill(second.pid, 'SIGCONT')
      await runtime.list()
      await second.kill()
      await expect(runtime.list()).rejects.toBeInstanceOf(UnavailableError)
      second = await startDockerd(own)
      const until = Date.now() + 20_000
      while (!seen.includes('resync') && Date.now() < until) await sleep(clock, 100)
      expect(seen).toContain('resync')
      expect(await runtime.list()).toEqual([])
    } finally {
      abort.abort()
      await following
      await runtime.destroy().catch(() => {})
      await second.stop()
      rmSync(own, { recursive: true, force: true })
    }
  })
})
