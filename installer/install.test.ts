import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { memoryFiles } from '../test/fakes/memory-files.ts'
import { ensureTls } from '../coordinator/access/ca.ts'
import { formatJoinToken } from '../shared/credentials.ts'
import { systemClock } from '../shared/clock.ts'
import { silentLogger } from '../shared/logger.ts'
import { systemRandom } from '../shared/random.ts'
import { agentBinaries } from './agent-binaries.ts'
import { renderUserData, settingsOfUserData } from './cloud-init.ts'
import { installScriptModule } from './embed-install-script.ts'
import { INSTALL_SCRIPT } from './install-script.ts'
import { shellQuote } from './shell-quote.ts'

const SCRIPT_PATH = new URL('install.sh', import.meta.url).pathname

describe('the installer’s texts', () => {
  it('install-script.ts carries install.sh as it is (else run embed-install-script.ts)', () => {
    const script = readFileSync(SCRIPT_PATH, 'utf8')
    expect(INSTALL_SCRIPT).toBe(script)
    expect(readFileSync(new URL('install-script.ts', import.meta.url), 'utf8')).toBe(installScriptModule(script))
  })

  it('install.sh carries the systemd unit as it is', () => {
    expect(INSTALL_SCRIPT).toContain(readFileSync(new URL('rubato-agent.service', import.meta.url), 'utf8'))
  })

  it.each(['sh', 'dash', 'bash'])('%s finds no fault in the script', (shell) => {
    const result = spawnSync(shell, ['-n', SCRIPT_PATH])
    if (result.error === undefined) expect(result.stderr.toString()).toBe('')
  })

  it('a shell word comes out as it went in, whatever it holds', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }).filter((text) => !text.includes('\0') && text.isWellFormed()),
        (text) => {
          const result = spawnSync('sh', ['-c', `printf %s ${shellQuote(text)}`])
          return result.stdout.toString('utf8') === text
        },
      ),
      { numRuns: 25 },
    )
  })
})

describe('user data', () => {
  const data = {
    urls: ['https://10.0.0.1:7600', 'https://10.0.0.2:7600'],
    joinToken: `rbtj_j-1_secret_${'a'.repeat(64)}`,
    agentSha256: { x64: 'b'.repeat(64) },
    labels: { disk: 'ssd', 'zone.name': 'a' },
    installDocker: true,
  } as const

  it('starts as cloud-init expects and fits into 16 kB', () => {
    const script = renderUserData({ ...data, kind: 'script' })
    const config = renderUserData({ ...data, kind: 'cloud-config' })
    expect(script.startsWith('#!/bin/sh\n')).toBe(true)
    expect(config.startsWith('#cloud-config\n')).toBe(true)
    expect(Buffer.byteLength(script)).toBeLessThan(16_000)
    expect(Buffer.byteLength(config)).toBeLessThan(16_384)
    const parsed = parse(config) as { write_files: { path: string; content: string }[]; runcmd: string[][] }
    expect(parsed.write_files[0]?.content).toBe(script)
    expect(parsed.runcmd).toEqual([['sh', parsed.write_files[0]?.path]])
  })

  it.each(['script', 'cloud-config', 'settings'] as const)('of kind %s can be read back', (kind) => {
    const { urls, joinToken: token, labels } = data
    expect(settingsOfUserData(renderUserData({ ...data, kind }))).toEqual({ urls, token, labels })
  })

  it('names the join token once: nothing else in it is secret', () => {
    expect(renderUserData({ ...data, kind: 'script' }).split(data.joinToken)).toHaveLength(2)
    expect(settingsOfUserData('#!/bin/sh\necho other')).toBeNull()
  })

  it('a hostile value stays a value', () => {
    const script = renderUserData({ ...data, kind: 'script', labels: { a: "'; touch /tmp/x; '" } })
    expect(script).toContain(`RUBATO_LABELS='a='\\''; touch /tmp/x; '\\'''\n`)
  })
})

describe('agent binaries', () => {
  it('are found by architecture and hashed again only when they change', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'rubato-bin-'))
    const binaries = agentBinaries(directory, 'x64')
    expect(await binaries.get('x64')).toBeNull()
    await writeFile(join(directory, 'rubato-agent'), 'one')
    expect((await binaries.get('x64'))?.sha256).toBe(createHash('sha256').update('one').digest('hex'))
    expect(await binaries.get('arm64')).toBeNull()
    await writeFile(join(directory, 'rubato-agent-linux-x64'), 'three')
    expect(await binaries.digests()).toEqual({ x64: createHash('sha256').update('three').digest('hex') })
    await rm(directory, { recursive: true, force: true })
  })
})

/** A coordinator that only serves what the installer asks for. */
async function fakeCoordinator(agent: string) {
  const tls = await ensureTls(
    { files: memoryFiles(), stateDir: '/s', clock: systemClock(), random: systemRandom(), logger: silentLogger() },
    ['127.0.0.1'],
  )
  const asked: string[] = []
  const levers = { unavailableTimes: 0, corrupt: false, caPem: tls.caPem }
  const server = createServer({ cert: tls.certPem, key: tls.keyPem }, (request, response) => {
    asked.push(request.url ?? '')
    if (levers.unavailableTimes > 0) {
      levers.unavailableTimes -= 1
      response.statusCode = 503
      return response.end()
    }
    if (request.url === '/v1/ca') return response.end(levers.caPem)
    if (request.url?.endsWith('.sha256'))
      return response.end(`${createHash('sha256').update(agent).digest('hex')}  rubato-agent\n`)
    if (request.url?.startsWith('/v1/agent-binary/')) return response.end(levers.corrupt ? `${agent}# changed\n` : agent)
    response.statusCode = 404
    return response.end()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const close = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  return { url, caDigest: tls.caDigest, caPem: tls.caPem, asked, levers, close }
}

describe('a run of the rendered user data', () => {
  let root: string
  let coordinator: Awaited<ReturnType<typeof fakeCoordinator>>
  /** Joins at once: writes the identity file where its configuration says. */
  const AGENT = `#!/bin/sh
config=$2
state=$(sed -n "s/^stateDir: '\\(.*\\)'$/\\1/p" "$config")
env >"$state/environment"
printf '{}' >"$state/identity.json"
echo started >>"$state/starts"
exec sleep 300
`
  const run = (userData: string, env: Record<string, string> = {}) =>
    new Promise<{ code: number | null; stderr: string }>((resolve) => {
      const child = spawn('sh', ['-s'], {
        env: { PATH: process.env.PATH ?? '', RUBATO_PREFIX: root, RUBATO_TRIES: '2', RUBATO_JOIN_WAIT: '20', ...env },
        stdio: ['pipe', 'ignore', 'pipe'],
      })
      let stderr = ''
      child.stderr.on('data', (chunk) => {
        stderr += String(chunk)
      })
      child.on('close', (code) => resolve({ code, stderr }))
      child.stdin.end(userData)
    })
  const userDataWith = (caDigest: string, labels: Record<string, string> = { disk: 'ssd' }) =>
    renderUserData({
      kind: 'script',
      urls: [coordinator.url],
      joinToken: formatJoinToken({ id: 'j-1', secret: 'sEcReT', caDigest }),
      labels,
    })
  const pidPath = () => join(root, 'run/rubato-agent.pid')

  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'rubato-root-'))
    coordinator = await fakeCoordinator(AGENT)
  })
  afterEach(async () => {
    if (existsSync(pidPath())) process.kill(Number(await readFile(pidPath(), 'utf8')), 'SIGTERM')
    await coordinator.close()
    await rm(root, { recursive: true, force: true })
  })

  it('V9: installs a checked agent, joins, and leaves no copy of the token behind', async () => {
    const cloudCopy = join(root, 'var/lib/cloud/instances/i-1/user-data.txt')
    await mkdir(join(cloudCopy, '..'), { recursive: true })
    await writeFile(cloudCopy, userDataWith(coordinator.caDigest))
    const { code, stderr } = await run(userDataWith(coordinator.caDigest))
    expect(stderr).toContain('this host is a node now')
    expect(code).toBe(0)
    expect(await readFile(join(root, 'usr/local/bin/rubato-agent'), 'utf8')).toBe(AGENT)
    const config = parse(await readFile(join(root, 'etc/rubato/agent.yaml'), 'utf8')) as Record<string, unknown>
    expect(config).toEqual({
      urls: [coordinator.url],
      stateDir: join(root, 'var/lib/rubato-agent'),
      tokenFile: join(root, 'etc/rubato/join.token'),
      labels: { disk: 'ssd' },
    })
    expect(existsSync(join(root, 'etc/rubato/join.token'))).toBe(false)
    expect(existsSync(cloudCopy)).toBe(false)
    expect(await readFile(join(root, 'var/lib/rubato-agent/environment'), 'utf8')).not.toContain('rbtj_')
    expect((await stat(join(root, 'var/lib/rubato-agent'))).mode & 0o777).toBe(0o700)
  })

  it('may run again: a running agent is left alone', async () => {
    await run(userDataWith(coordinator.caDigest))
    const pid = await readFile(pidPath(), 'utf8')
    const { code } = await run(userDataWith(coordinator.caDigest))
    expect(code).toBe(0)
    expect(await readFile(pidPath(), 'utf8')).toBe(pid)
    expect(await readFile(join(root, 'var/lib/rubato-agent/starts'), 'utf8')).toBe('started\n')
    expect(coordinator.asked.filter((path) => /linux-(x64|arm64)$/.test(path))).toHaveLength(1)
  })

  it('tries again while the coordinator does not answer', async () => {
    coordinator.levers.unavailableTimes = 1
    expect((await run(userDataWith(coordinator.caDigest))).code).toBe(0)
  })

  it('refuses a coordinator whose authority the token does not name, and shows it nothing', async () => {
    const { code, stderr } = await run(userDataWith('f'.repeat(64)))
    expect(code).toBe(1)
    expect(stderr).toContain('not the one that the join token names')
    expect(stderr).not.toContain('sEcReT')
    expect(new Set(coordinator.asked)).toEqual(new Set(['/v1/ca']))
    expect(existsSync(join(root, 'usr/local/bin/rubato-agent'))).toBe(false)
  })

  it('an authority of somebody else behind the right one in /v1/ca is not trusted', async () => {
    const genuine = coordinator.caPem
    const thief = await fakeCoordinator(`${AGENT}# of a thief\n`)
    try {
      const { caDigest } = coordinator
      const userData = () =>
        renderUserData({
          kind: 'script',
          urls: [thief.url],
          joinToken: formatJoinToken({ id: 'j-1', secret: 'sEcReT', caDigest }),
        })
      const body = genuine.replaceAll(/-----[^-]+-----\s*/g, '')
      for (const served of [
        `${genuine}\n${thief.caPem}`,
        `-----BEGIN CERTIFICATE-----\n${body}-----END X-----\n${thief.caPem}`,
        `${genuine.replace('-----BEGIN', 'x\n-----BEGIN')}${thief.caPem}`,
      ]) {
        thief.levers.caPem = served
        expect((await run(userData())).code).toBe(1)
        expect(existsSync(join(root, 'usr/local/bin/rubato-agent'))).toBe(false)
        expect(thief.asked.filter((path) => path !== '/v1/ca')).toEqual([])
      }
    } finally {
      await thief.close()
    }
  })

  it('fetches nothing over plain HTTP from elsewhere, whatever the token says', async () => {
    const token = 'rbtj_j-1_secret_plain'
    for (const url of [
      'http://0.0.0.0:9',
      'http://127.0.0.1.invalid:9',
      'http://127.0.0.1:9@0.0.0.0:9',
      'http://localhost:9@0.0.0.0:9',
    ]) {
      const { code, stderr } = await run(renderUserData({ kind: 'script', urls: [url], joinToken: token }), { RUBATO_TRIES: '1' })
      expect(code).toBe(1)
      expect(stderr).toContain('is refused: plain HTTP')
    }
  })

  it('refuses an agent with the wrong checksum', async () => {
    coordinator.levers.corrupt = true
    const { code, stderr } = await run(userDataWith(coordinator.caDigest))
    expect(code).toBe(1)
    expect(stderr).toContain('wrong checksum')
    expect(existsSync(join(root, 'usr/local/bin/rubato-agent'))).toBe(false)
  })

  it('brings libatomic where the agent’s loader does not find it', async () => {
    if (!existsSync('/bin/busybox')) return
    await coordinator.close()
    // A static shell ignores what the installer asks the loader, so that this agent can answer for it.
    const answer = `[ -z "$LD_TRACE_LOADED_OBJECTS" ] || { echo 'libatomic.so.1 => not found'; exit 1; }`
    coordinator = await fakeCoordinator(AGENT.replace('#!/bin/sh', `#!/bin/busybox sh\n${answer}`))
    const tools = join(root, 'tools')
    await mkdir(tools)
    await writeFile(join(tools, 'apt-get'), `#!/bin/sh\necho "$*" >>${root}/apt\n`, { mode: 0o755 })
    await writeFile(join(tools, 'id'), '#!/bin/sh\necho 0\n', { mode: 0o755 })
    const { code } = await run(userDataWith(coordinator.caDigest), { PATH: `${tools}:${process.env.PATH}` })
    expect(code).toBe(0)
    expect(await readFile(join(root, 'apt'), 'utf8')).toBe('-q update\n-q -y --no-install-recommends install libatomic1\n')
  })

  it('works with wget where there is no curl', async () => {
    if (spawnSync('sh', ['-c', 'command -v wget']).status !== 0) return
    // A PATH with everything the script needs but curl.
    const bin = join(root, 'tools')
    await mkdir(bin)
    const tools =
      'sh cut sed base64 sha256sum mktemp mkdir mv rm cat cmp chmod uname id kill sleep nohup setsid env grep tr printf wget'
    for (const tool of tools.split(' ')) {
      const found = spawnSync('sh', ['-c', `command -v ${tool}`])
        .stdout.toString()
        .trim()
      if (!found.startsWith('/')) continue
      await writeFile(join(bin, tool), `#!/bin/sh\nexec ${found} "$@"\n`)
      await chmod(join(bin, tool), 0o755)
    }
    const { code, stderr } = await run(userDataWith(coordinator.caDigest), { PATH: bin })
    expect(stderr).toContain('this host is a node now')
    expect(code).toBe(0)
  })
})
