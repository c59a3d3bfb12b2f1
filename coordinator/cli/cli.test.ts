/** The command line against the API in process. */
import { readFile } from 'node:fs/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import { type ApiBed, apiBed } from '../../test/builders/api-bed.ts'
import { type CliBed, cliBed } from '../../test/builders/cli-bed.ts'
import { aNodeObservation, aNodeUse, anInstanceObservation, anInstanceUse } from '../../test/builders/observed.ts'
import {
  aMachineRecord,
  aNodeRecord,
  anInstanceRecord,
  aPool,
  aServiceRecord,
  someAssignments,
  T0,
} from '../../test/builders/records.ts'
import { aContainerSpec, anAppSpec, aServiceSpec, aUnitSpec } from '../../test/builders/specs.ts'
import { specHashOf } from '../../shared/canonical.ts'
import { InputError } from '../../shared/errors.ts'
import { EXIT } from './io.ts'
import { buildProgram } from './run-cli.ts'
import { type Column, paintWith, renderTable } from './table.ts'

let api: ApiBed
let cli: CliBed

beforeEach(async () => {
  api = await apiBed()
  cli = cliBed(api)
})

async function seedShop(): Promise<void> {
  await api.seedApp(anAppSpec({ name: 'shop', services: [aServiceSpec({ name: 'web', replicas: 2 })] }))
  await api.state.commit(
    api.state
      .change()
      .put('node', 'n-1', aNodeRecord())
      .put('service', 'shop/web', aServiceRecord({ desired: 2, pending: [anInstanceRecord({ id: 'shop/web/2/1' })] }))
      .put('assignments', 'n-1', someAssignments('n-1', [anInstanceRecord({ nodeId: 'n-1' })])),
  )
  api.observed.setNode(aNodeObservation({ use: aNodeUse({ cpuMillis: 250, memoryBytes: 2 ** 30 }) }))
  api.observed.setInstance(
    anInstanceObservation({ use: anInstanceUse({ loadPercent: 42.4, cpuMillis: 120, memoryBytes: 64 * 2 ** 20 }) }),
  )
}

async function makeReady(): Promise<void> {
  await seedShop()
  await api.state.commit(api.state.change().put('service', 'shop/web', aServiceRecord({ desired: 1 })))
}

describe('tables at 80 columns', () => {
  it('ps lists instances', async () => {
    await seedShop()
    await api.clock.advance(90_000)
    const { out, exitCode } = await cli.run('ps')
    expect(exitCode).toBe(EXIT.ok)
    expect(out).toMatchInlineSnapshot(`
      "INSTANCE      NODE  STATE    LOAD   CPU  MEM     UP  NOTE
      shop/web/1/1  n-1   ready     42%  0.12  64M  1m30s  -
      shop/web/2/1  -     pending     -     -    -      -  0 of 1 node: 1 memory
      "
    `)
  })

  it('ps --services lists services, long values cut with an ellipsis', async () => {
    const image = 'registry.example.org:5000/a/rather/long/path/to/shop/web:2026-01-05-build.1234'
    const unit = aUnitSpec({ containers: [aContainerSpec({ image })] })
    await api.seedApp(anAppSpec({ name: 'shop', services: [aServiceSpec({ name: 'web', unit })] }))
    const { out } = await cli.run('ps', '-s')
    expect(out).toMatchInlineSnapshot(`
      "SERVICE   READY  LOAD  SCALE  NOTE  IMAGE
      shop/web    0/1     -  fixed  -     registry.example.org:5000/a/rather/long/pat…
      "
    `)
  })

  it('ps has a row for a service that waits for another, with what it waits for', async () => {
    const dependsOn = [{ service: 'web', condition: 'healthy', required: true }] as const
    await seedShop()
    await api.seedApp(
      anAppSpec({ name: 'late', services: [aServiceSpec({ name: 'web' }), aServiceSpec({ name: 'api', dependsOn })] }),
    )
    const { out } = await cli.run('ps', 'late')
    expect(out.split('\n')).toContainEqual(expect.stringMatching(/^late\/api +- +waiting .*starts after late\/web$/))
  })

  it('nodes lists nodes', async () => {
    await seedShop()
    const { out } = await cli.run('nodes')
    expect(out).toMatchInlineSnapshot(`
      "NODE  STATE  POOL  INST     CPU  USED     MEM  AGE  ADDRESS   HOST
      n-1   live   -        1  0.10/4  0.25  64M/8G   0s  10.0.0.1  n-1
      "
    `)
  })

  it('in 80 columns ids and addresses of nodes are whole; what is less needed is left out', () => {
    const row = {
      id: 'n-49xufvcwuu',
      age: '7m57s',
      address: '127.77.143.145',
      host: 'c-dvcc2smcpr-m-5w8zqqoo8x',
      rest: 'x'.repeat(40),
    }
    const columns: readonly Column<typeof row>[] = [
      { title: 'NODE', value: ({ id }) => id },
      { title: 'REST', value: ({ rest }) => rest },
      { title: 'AGE', value: ({ age }) => age, dropOrder: 2 },
      { title: 'ADDRESS', value: ({ address }) => address },
      { title: 'HOST', value: ({ host }) => host, shrinkTo: 8, dropOrder: 1 },
    ]
    const headerAt = (width: number) => renderTable([row], columns, { width, paint: paintWith(false) })[0]?.split(/\s+/)
    expect(headerAt(80)).toEqual(['NODE', 'REST', 'AGE', 'ADDRESS'])
    expect(headerAt(72)).toEqual(['NODE', 'REST', 'ADDRESS'])
    expect(headerAt(200)).toContain('HOST')
  })

  it('pools lists pools and machines', async () => {
    await api.state.commit(
      api.state
        .change()
        .put('pool', 'small', aPool())
        .put('machine', 'm-1', aMachineRecord({ reason: 'two instances of shop/web fit on none of the nodes there are' })),
    )
    const { out } = await cli.run('pools')
    expect(out).toMatchInlineSnapshot(`
      "POOL   PROVIDER  MACHINES    CPU  MEM  $/H  ZONE  OFFERING
      small  fake      0+1 (0-10)    4   8G  0.1  -     small

      MACHINE  POOL   PHASE      NODE  AGE  NOTE
      m-1      small  requested  -      0s  two instances of shop/web fit on none of …
      "
    `)
  })

  it('no line is longer than the terminal, at any width', async () => {
    await seedShop()
    for (const columns of [20, 33, 47, 80, 200]) {
      cli.columns = columns
      for (const verb of [['ps'], ['ps', '-s'], ['nodes'], ['top']] as const) {
        const { out } = await cli.run(...verb)
        const lines = verb[0] === 'top' ? out.split('\n').slice(2) : out.split('\n')
        for (const line of lines) expect([...line].length).toBeLessThanOrEqual(columns)
      }
    }
  })

  it('a name that holds terminal codes reaches the terminal without them', async () => {
    await api.state.commit(api.state.change().put('node', 'n-1', aNodeRecord({ hostname: '\u001b]0;owned\u0007\u001b[2Jhost' })))
    const { out } = await cli.run('nodes')
    expect(out).not.toContain('\u001b')
    expect(out).not.toContain('\u0007')
  })
})

describe('deploying', () => {
  it('up waits until every service is ready', async () => {
    const run = cli.start('up', '-f', 'compose.yaml')
    await api.clock.advance(3000)
    await makeReady()
    await api.clock.advance(3000)
    const { exitCode, out, err } = await run.done
    expect(exitCode).toBe(EXIT.ok)
    expect(err).toContain('web 0/1')
    expect(out).toContain('shop is ready: revision 1')
  })

  it('up does not take old instances for new ones before the update has begun', async () => {
    await makeReady()
    const unit = aUnitSpec({ containers: [aContainerSpec({ image: 'shop/web:2' })] })
    const spec = anAppSpec({ services: [aServiceSpec({ unit, specHash: specHashOf(unit) })] })
    cli.readApp = async () => ({ spec, source: '', warnings: [] })
    const run = cli.start('up', '-f', 'compose.yaml', '--timeout', '5')
    await api.clock.advance(10_000)
    const { exitCode, err } = await run.done
    expect(exitCode).toBe(EXIT.timedOut)
    expect(err).toContain('web 0/1')
  })

  it('up fails when the update is rolled back', async () => {
    const run = cli.start('up', '-f', 'compose.yaml')
    await api.clock.advance(1000)
    const rollout = {
      fromRevision: 0,
      toRevision: 1,
      phase: 'rolling-back' as const,
      startedAtMs: T0,
      message: 'web/1/2 exited with 1',
    }
    await api.state.commit(api.state.change().put('service', 'shop/web', aServiceRecord({ rollout })))
    await api.clock.advance(3000)
    const { exitCode, err } = await run.done
    expect(exitCode).toBe(EXIT.failed)
    expect(err).toContain('web/1/2 exited with 1')
    expect(err).toContain('→ "rubato explain shop/web"')
  })

  it('up says so when the time is over, and that it goes on', async () => {
    const run = cli.start('up', '-f', 'compose.yaml', '--timeout', '10')
    await api.clock.advance(20_000)
    const { exitCode, err } = await run.done
    expect(exitCode).toBe(EXIT.timedOut)
    expect(err).toContain('is not ready after 10 s')
  })

  it('a time-out may be a duration, and anything else is refused before something changes', async () => {
    const run = cli.start('up', '-f', 'compose.yaml', '--timeout', '10s')
    await api.clock.advance(20_000)
    expect((await run.done).err).toContain('is not ready after 10 s')
    const refused = await cli.run('up', '-f', 'compose.yaml', '--timeout', 'soon')
    expect(refused.exitCode).toBe(EXIT.refused)
    expect(refused.err).toContain('Like 90s or 10m')
  })

  it('up --detach does not wait, diff and --dry-run change nothing', async () => {
    expect((await cli.run('diff', '-f', 'x.yaml')).out).toContain('add service web')
    expect((await cli.run('up', '--dry-run', '-f', 'x.yaml')).out).toContain('1 instance on n-1')
    expect(api.state.snapshot.all('app').size).toBe(0)
    const { exitCode, out } = await cli.run('up', '-d', '-f', 'x.yaml')
    expect([exitCode, out]).toEqual([EXIT.ok, 'shop is at revision 1; "rubato ps shop" shows how far it is.\n'])
  })

  it('up --dry-run asks the coordinator of this host as up would, though nothing but a token names it', async () => {
    cli.env = { RUBATO_TOKEN: api.tokens.admin }
    expect((await cli.run('up', '--dry-run', '-f', 'x.yaml')).out).toContain('1 instance on n-1')
    cli.env = {}
    expect((await cli.run('up', '--dry-run', '-f', 'x.yaml')).exitCode).toBe(EXIT.unauthorized)
  })

  it('up --dry-run plans on one assumed node where nothing answers and nothing names a coordinator, or when told to', async () => {
    cli.fetch = () => Promise.reject(new Error('no answer'))
    expect((await cli.run('up', '--dry-run', '-f', 'x.yaml')).exitCode).toBe(EXIT.unreachable)
    expect((await cli.run('up', '--dry-run', '--offline', '-f', 'x.yaml')).out).toContain('64 GiB (no coordinator was asked):')
    cli.env = {}
    const { exitCode, out } = await cli.run('up', '--dry-run', '-f', 'x.yaml')
    expect(exitCode).toBe(EXIT.ok)
    expect(out).toMatchInlineSnapshot(`
      "App shop on one assumed node of 16 CPUs and 64 GiB (nothing answers at http://127.0.0.1:7600):
      SERVICE  COUNT  RESERVED         PORTS    ACCESS   IMAGE
      web      1      0.1 CPU, 64 MiB  80/http  any key  shop/web:1
      1 instance placed
      → To ask the cluster itself, name its coordinator with --url or RUBATO_URL.
      "
    `)
  })

  it('a refused file gives one precise line per fault and exit code 2', async () => {
    cli.readApp = () =>
      Promise.reject(
        new InputError('no', [
          {
            path: '/services/web/prots',
            message: 'unknown key prots',
            hint: 'did you mean ports?',
            file: 'x.yaml',
            line: 4,
            column: 5,
          },
          { path: '/services/db', message: 'privileged is refused', file: 'x.yaml', line: 9, column: 3 },
        ]),
      )
    const { exitCode, err, out } = await cli.run('up', '--dry-run', '-f', 'x.yaml')
    expect(exitCode).toBe(EXIT.refused)
    expect(out).toBe('')
    expect(err).toBe('x.yaml:4:5: unknown key prots (did you mean ports?)\nx.yaml:9:3: privileged is refused\n')
  })

  it('warnings of a file are printed: nothing is ignored in silence', async () => {
    cli.readApp = async () => ({
      spec: anAppSpec(),
      source: '',
      warnings: [{ path: '/services/web/build', message: 'build is ignored, image is used', line: 3, column: 5 }],
    })
    const { err } = await cli.run('up', '-d', '-f', 'x.yaml')
    expect(err).toContain('x.yaml:3:5: warning: build is ignored, image is used')
  })

  it('down waits until the app is gone', async () => {
    await seedShop()
    const { exitCode, out } = await cli.run('down', 'shop')
    expect([exitCode, out]).toEqual([EXIT.ok, 'shop is removed.\n'])
  })

  it('scale pins and unpins', async () => {
    await seedShop()
    expect((await cli.run('scale', 'shop/web=5')).out).toBe('shop/web: pinned to 5\n')
    expect(api.state.snapshot.get('service', 'shop/web')?.pinned).toBe(5)
    expect((await cli.run('scale', 'shop/web=auto')).exitCode).toBe(EXIT.ok)
    expect(api.state.snapshot.get('service', 'shop/web')?.pinned).toBeNull()
    expect((await cli.run('scale', 'shop/web=-1')).exitCode).toBe(EXIT.refused)
  })

  it('rollback returns to the revision before', async () => {
    await api.send('POST', '/v1/apps', { body: { spec: anAppSpec() } })
    await api.send('POST', '/v1/apps', { body: { spec: anAppSpec() } })
    const { exitCode } = await cli.run('rollback', 'shop', '-d')
    expect(exitCode).toBe(EXIT.ok)
    expect(api.state.snapshot.get('app', 'shop')?.revision).toBe(3)
  })
})

describe('looking', () => {
  it('explain says why an instance waits', async () => {
    await seedShop()
    const { out } = await cli.run('explain', 'shop/web')
    expect(out).toContain('shop/web: 1 of 2 ready, 1 waiting for a place')
    expect(out).toContain('shop/web/2/1: 0 of 1 node: 1 memory')
    expect((await cli.run('explain', 'shop/web/2/1')).out).toContain('waiting for a place')
    expect((await cli.run('explain', 'shop')).exitCode).toBe(EXIT.refused)
    expect((await cli.run('explain', 'shop/nothing')).exitCode).toBe(EXIT.notFound)
  })

  it('names what is not there, and the verb that lists what is', async () => {
    await seedShop()
    const service = await cli.run('logs', 'shop/wb')
    expect(service.exitCode).toBe(EXIT.notFound)
    expect(service.err).toContain('has no service wb')
    expect(service.err).toContain('"rubato ps -s"')
    expect((await cli.run('node', 'drain', 'n-9')).err).toContain('"rubato nodes"')
    expect((await cli.run('logs', 'shop/web', '--tail', 'x')).exitCode).toBe(EXIT.refused)
    expect((await cli.run('token', 'operator', 'ci', '--role', 'god')).err).toContain('viewer, operator or admin')
  })

  it('a pinned service wants what it is pinned to', async () => {
    await seedShop()
    await api.state.commit(api.state.change().put('service', 'shop/web', aServiceRecord({ pinned: 3, desired: 2 })))
    expect((await cli.run('explain', 'shop/web')).out).toContain('shop/web: 1 of 3 ready')
  })

  it('logs prints lines without codes that move the cursor', async () => {
    await seedShop()
    api.logLines.push({ atMs: 1, stream: 'stdout', text: 'hello \u001b[31mred\u001b[0m\u001b[2J' })
    expect((await cli.run('logs', 'shop/web')).out).toBe('hello \u001b[31mred\u001b[0m[2J\n')
  })

  it('events prints the newest, and follows until interrupted', async () => {
    await seedShop()
    const once = await cli.run('events')
    expect(once.out).toContain('app.deployed')
    const run = cli.start('events', '-f', '--tail', '0')
    await api.clock.advance(100)
    await cliBed(api).run('keys', 'create', 'ci')
    await api.clock.advance(100)
    cli.abort.abort()
    await api.clock.advance(100)
    const { exitCode, out } = await run.done
    expect(exitCode).toBe(EXIT.ok)
    expect(out).toContain('key.created')
  })

  it('events are wrapped, not cut: the reason stands at the end; --warnings leaves out the rest', async () => {
    const change = api.state.change()
    const reason = `wants 5: peak demand is 228 % of one instance, over the threshold of ${'very '.repeat(8)}many`
    change.event({ actor: 'services', type: 'service.scaled', subject: 'shop/web', message: reason, severity: 'warning' })
    change.event({ actor: 'operator:ann', type: 'key.created', subject: 'k-1', message: 'k-1 was made', severity: 'info' })
    await api.state.commit(change)
    const { out } = await cli.run('events')
    expect(out.replaceAll(/\n +/g, ' ')).toContain(`service.scaled  shop/web  ${reason}\n`)
    expect(out).toContain('key.created  k-1 was made (ann)')
    for (const line of out.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    expect((await cli.run('events', '--warnings')).out).not.toContain('key.created')
  })

  it('explain of a placed instance says why it is there', async () => {
    await seedShop()
    const change = api.state.change()
    for (const id of ['shop/web/1/1', 'shop/web/1/10'])
      change.event({
        actor: 'placement',
        type: 'instance.placed',
        subject: id,
        message: `${id} goes to n-1: spread`,
        severity: 'info',
      })
    await api.state.commit(change)
    expect((await cli.run('explain', 'shop/web/1/1')).out).toContain('  shop/web/1/1 goes to n-1: spread.\n')
  })

  it('top prints once where there is no terminal', async () => {
    await seedShop()
    const { out } = await cli.run('top')
    expect(out).toContain('nodes 1/1  instances 1/2 ready, 1 pending')
  })

  it('fleet status tells money, lead times, resting pools and reasons', async () => {
    const { out } = await cli.run('fleet', 'status')
    expect(out).toContain('this month: $1.25 spent, $3.50 with what is committed, limit $100.00')
    expect(out).toContain('pool small: 2 joined, 1 booting, joins in 42 s (p90), rests for 90 s: sold out')
    expect(out).toContain('n-1: is younger than 600 s')
  })

  it('migrate tells how many instances move, and which pool does not exist', async () => {
    await seedShop()
    const wrong = await cli.run('migrate', 'shop', '--to', 'nowhere')
    expect(wrong.exitCode).not.toBe(EXIT.ok)
    expect(wrong.err).toContain('There is no pool nowhere.\n→ "rubato pools" lists what there is.')
    await api.state.commit(api.state.change().put('pool', 'large', aPool({ name: 'large' })))
    expect((await cli.run('migrate', 'shop', '--to', 'large', '--dry-run')).out).toBe('1 instance of shop would move to large.\n')
    expect((await cli.run('migrate', 'shop', '--to', 'large')).out).toContain('1 instance of shop moves to large')
  })

  it('-o json gives JSON on every list', async () => {
    await seedShop()
    for (const verb of [
      ['ps'],
      ['ps', '-s'],
      ['nodes'],
      ['pools'],
      ['events'],
      ['keys', 'ls'],
      ['top'],
      ['explain', 'shop/web'],
    ]) {
      const { out, exitCode } = await cli.run(...verb, '-o', 'json')
      expect(exitCode, verb.join(' ')).toBe(EXIT.ok)
      expect(() => JSON.parse(out), verb.join(' ')).not.toThrow()
    }
  })

  it('doctor names the next step of each failing line', async () => {
    const good = await cli.run('doctor')
    expect(good.exitCode).toBe(EXIT.ok)
    expect(good.out).toContain('coordinator: version 0.1.0-test')
    cli.fetch = () =>
      Promise.reject(new TypeError('fetch failed', { cause: Object.assign(new Error('no'), { code: 'ECONNREFUSED' }) }))
    const bad = await cli.run('doctor')
    expect(bad.exitCode).toBe(EXIT.failed)
    expect(bad.out).toMatch(/failed {3}coordinator: .*ECONNREFUSED[^\n]*\n +→ Start one/)
  })
})

describe('nodes, keys and tokens', () => {
  it('node drain, cordon, uncordon and rm', async () => {
    await seedShop()
    expect((await cli.run('node', 'cordon', 'n-1')).out).toBe('n-1 is cordoned.\n')
    expect((await cli.run('node', 'uncordon', 'n-1')).exitCode).toBe(EXIT.ok)
    const drained = await cli.run('node', 'drain', 'n-1', '--deadline', '5m', '--reason', 'kernel')
    expect(drained.out).toMatch(/^n-1 drains\.\nIt is over by \S+Z; "rubato nodes" shows how far it is\.\n/)
    const node = api.state.snapshot.get('node', 'n-1')
    expect(node?.drain).toMatchObject({ reason: 'kernel', by: 'operator:admin', deleteMachine: true })
    expect((node?.drain?.deadlineAtMs ?? 0) - (node?.drain?.startedAtMs ?? 0)).toBe(300_000)
    expect((await cli.run('node', 'rm', 'n-1')).exitCode).toBe(EXIT.conflict)
    expect((await cli.run('node', 'rm', 'n-1', '--force')).exitCode).toBe(EXIT.ok)
    expect((await cli.run('node', 'drain', 'n-9')).exitCode).toBe(EXIT.notFound)
  })

  it('keys create prints only the key on stdout; revoke --wait names nodes that have not applied it', async () => {
    const made = await cli.run('keys', 'create', 'ci', '--role', 'deploy', '--ttl', '30d')
    expect(made.out).toMatch(/^rbt_[^\s]+\n$/)
    expect((await cli.run('keys', 'ls')).out).toContain('deploy')
    api.keysWaitingFor.push('n-7')
    const run = cli.start('keys', 'revoke', 'ci', '--wait', '--timeout', '2s')
    await api.clock.advance(5000)
    const { exitCode, err } = await run.done
    expect(exitCode).toBe(EXIT.timedOut)
    expect(err).toContain('n-7')
    api.keysWaitingFor.pop()
    expect((await cli.run('keys', 'revoke', 'ci', '--wait')).out).toContain('revoked on every live node')
  })

  it('token join and token operator print only the token on stdout', async () => {
    expect((await cli.run('token', 'join', '--label', 'disk=ssd')).out).toMatch(/^rbtj_\S+_plain\n$/)
    const advised = await cli.run('token', 'join')
    expect(advised.err).toContain('rubato-agent --urls')
    expect(advised.err).toContain('| sh -s -- --url')
    // Every process of a host can read the arguments of the others.
    expect(advised.err).not.toContain('rbtj_')
    // Over loopback nobody else can join: said with the settings that open it.
    expect(advised.err).toMatch(
      /warning: 127\.0\.0\.1 reaches .* this host only[\s\S]*listen: 0\.0\.0\.0:7600\n +advertiseUrls: \[https:/,
    )
    const elsewhere = await cli.run('token', 'join', '--url', 'https://control.example.org')
    expect(elsewhere.err).not.toContain('warning')
    expect((await cli.run('token', 'operator', 'ci')).out).toMatch(/^rbto_\S+\n$/)
    expect((await cli.run('token', 'join', '--label', 'disk')).exitCode).toBe(EXIT.refused)
  })
})

describe('connection and exit codes', () => {
  it('config file, token file and their permissions', async () => {
    cli.env = {}
    cli.disk.set('/home/me/.config/rubato/config.yaml', {
      text: `url: http://127.0.0.1:1\ntoken: ${api.tokens.viewer}\n`,
      mode: 0o100644,
    })
    const open = await cli.run('nodes')
    expect(open.exitCode).toBe(EXIT.refused)
    expect(open.err).toContain('chmod 600')
    cli.disk.set('/home/me/.config/rubato/config.yaml', {
      text: `url: http://127.0.0.1:1\ntoken: ${api.tokens.viewer}\n`,
      mode: 0o100600,
    })
    expect((await cli.run('nodes')).exitCode).toBe(EXIT.ok)
    expect((await cli.run('token', 'operator', 'x')).exitCode).toBe(EXIT.unauthorized)
    cli.disk.set('/here/t', { text: `${api.tokens.admin}\n`, mode: 0o100600 })
    expect((await cli.run('token', 'operator', 'x', '--token-file', 't')).exitCode).toBe(EXIT.ok)
  })

  it('a token is not sent in the clear beyond this host', async () => {
    const { exitCode, err } = await cli.run('nodes', '--url', 'http://10.1.2.3:7600')
    expect(exitCode).toBe(EXIT.refused)
    expect(err).toContain('not encrypted')
  })

  it('no answer is 5, a bad token 4, bad usage 2, help 0', async () => {
    cli.env.RUBATO_TOKEN = 'nonsense'
    expect((await cli.run('nodes')).exitCode).toBe(EXIT.unauthorized)
    expect((await cli.run('nodes', '--colour')).exitCode).toBe(EXIT.refused)
    expect((await cli.run('frobnicate')).exitCode).toBe(EXIT.refused)
    expect((await cli.run('nodes', '-o', 'xml')).exitCode).toBe(EXIT.refused)
    const help = await cli.run('--help')
    expect(help.exitCode).toBe(EXIT.ok)
    expect(help.out).toContain('rollback')
    cli.fetch = () => Promise.reject(new TypeError('fetch failed'))
    const away = await cli.run('nodes')
    expect(away.exitCode).toBe(EXIT.unreachable)
    expect(away.err).toContain('rubato coordinator')
  })

  it('coordinator hands its own options over untouched', async () => {
    expect((await cli.run('coordinator', '--url', 'x', '--help')).out).toBe('coordinator --url x --help\n')
  })

  it('completion knows every verb', async () => {
    const { out } = await cli.run('completion', 'bash')
    for (const word of ['rollback', 'drain', 'revoke', 'doctor']) expect(out).toContain(word)
  })
})

describe('docs/cli.md', () => {
  it('names every verb and every exit code', async () => {
    const text = await readFile(new URL('../../docs/cli.md', import.meta.url), 'utf8')
    const io = { out() {}, err() {} } as unknown as Parameters<typeof buildProgram>[0]
    const program = buildProgram(io, '0', () => {})
    for (const command of program.commands) {
      if (command.commands.length === 0) expect(text, command.name()).toContain(`rubato ${command.name()}`)
      for (const sub of command.commands) expect(text, sub.name()).toContain(`rubato ${command.name()} ${sub.name()}`)
    }
    for (const code of Object.values(EXIT)) expect(text).toContain(`| ${code} |`)
  })
})
