import { describe, expect, it } from 'vitest'
import { InputError } from '../../../shared/errors.ts'
import type { ContainerSpec } from '../../../shared/model/unit.ts'
import { aContainerSpec, aUnitSpec } from '../../../test/builders/specs.ts'
import type { CreateContainer } from '../runtime.ts'
import { createOptionsOf, foreignOf, observedOf } from './docker-mapping.ts'
import type { EngineInspectInfo } from './docker-types.ts'
import { isStopSignal } from './stop-signal.ts'

const context = { clusterId: 'c1', nodeId: 'n-1', networkName: 'rubato-n-1', dns: [] }

const requestOf = (spec: Partial<ContainerSpec> = {}, fields: Partial<CreateContainer> = {}): CreateContainer => ({
  instance: 'shop/web/1/2',
  specHash: 'hash-1',
  spec: aContainerSpec(spec),
  unit: aUnitSpec(),
  ports: [
    { containerPort: 80, protocol: 'http' },
    { containerPort: 53, protocol: 'udp' },
  ],
  sharesNetworkOf: null,
  extraEnvironment: {},
  extraHosts: [],
  ...fields,
})
const optionsOf = (spec: Partial<ContainerSpec> = {}, fields: Partial<CreateContainer> = {}) =>
  createOptionsOf(requestOf(spec, fields), context)
const hostOf = (spec: Partial<ContainerSpec>, fields: Partial<CreateContainer> = {}) => optionsOf(spec, fields).HostConfig

describe('what a container is created with', () => {
  it('its name is its identity; a sidecar adds its own; one that waits for files is not named so yet', () => {
    expect(optionsOf().name).toBe('shop.web.1.2')
    expect(optionsOf({ name: 'proxy' }, { sharesNetworkOf: 'abc' }).name).toBe('shop.web.1.2.proxy')
    const file = { target: '/run/secrets/x', mode: 0o400, contentBase64: 'eA==', secret: true }
    expect(optionsOf({ files: [file] }).name).toBe('rubato-unfinished.shop.web.1.2')
  })

  it("our labels lie over the user's, so that none can be forged", () => {
    const { Labels } = optionsOf({ labels: { 'rubato.instance': 'forged', 'rubato.cluster': 'forged', team: 'a' } })
    expect(Labels).toEqual({
      'rubato.cluster': 'c1',
      'rubato.node': 'n-1',
      'rubato.instance': 'shop/web/1/2',
      'rubato.spec-hash': 'hash-1',
      'rubato.container': 'web',
      team: 'a',
    })
  })

  it('publishes nothing and lets the engine restart nothing', () => {
    const options = optionsOf()
    expect(options.HostConfig).not.toHaveProperty('PortBindings')
    expect(options.HostConfig).not.toHaveProperty('PublishAllPorts')
    expect(options.ExposedPorts).toEqual({ '80/tcp': {}, '53/udp': {} })
    expect(options.HostConfig?.RestartPolicy).toEqual({ Name: 'no' })
    expect(options.HostConfig?.NetworkMode).toBe('rubato-n-1')
  })

  it.each<[string, Partial<ContainerSpec>, object]>([
    ['image', { image: 'a/b:1' }, { Image: 'a/b:1' }],
    ['platform', { platform: 'linux/arm64' }, { platform: 'linux/arm64' }],
    ['entrypoint', { entrypoint: ['/a'] }, { Entrypoint: ['/a'] }],
    ['an emptied entrypoint', { entrypoint: [] }, { Entrypoint: [] }],
    ['command', { command: ['b', 'c'] }, { Cmd: ['b', 'c'] }],
    ['user', { user: '1:2' }, { User: '1:2' }],
    ['working directory', { workingDir: '/w' }, { WorkingDir: '/w' }],
    ['hostname', { hostname: 'h' }, { Hostname: 'h' }],
    ['tty', { tty: true }, { Tty: true }],
    ['stdin', { stdinOpen: true }, { OpenStdin: true }],
    ['stop signal', { stopSignal: 'SIGINT' }, { StopSignal: 'SIGINT' }],
    ['environment', { environment: { A: 'x=y' } }, { Env: ['A=x=y'] }],
  ])('%s', (_name, spec, expected) => expect(optionsOf(spec)).toMatchObject(expected))

  it.each<[string, Partial<ContainerSpec>, object]>([
    ['CPU limit', { limits: { cpuMillis: 250 } }, { NanoCpus: 250_000_000 }],
    ['memory limit', { limits: { memoryBytes: 1024 } }, { Memory: 1024 }],
    ['process limit', { limits: { pids: 9 } }, { PidsLimit: 9 }],
    ['CPU reservation', { reservations: { cpuMillis: 500 } }, { CpuShares: 512 }],
    ['the smallest CPU reservation', { reservations: { cpuMillis: 1 } }, { CpuShares: 2 }],
    ['memory reservation', { reservations: { memoryBytes: 9 } }, { MemoryReservation: 9 }],
    ['a reservation above its limit', { limits: { memoryBytes: 5 }, reservations: { memoryBytes: 9 } }, { MemoryReservation: 5 }],
    ['capabilities', { capAdd: ['NET_ADMIN'], capDrop: ['ALL'] }, { CapAdd: ['NET_ADMIN'], CapDrop: ['ALL'] }],
    ['no raw sockets, with which a container could send in the name of another', {}, { CapAdd: [], CapDrop: ['NET_RAW'] }],
    ['others dropped as well', { capDrop: ['CHOWN'] }, { CapDrop: ['CHOWN', 'NET_RAW'] }],
    ['raw sockets for who asks for them', { capAdd: ['cap_net_raw'] }, { CapAdd: ['cap_net_raw'], CapDrop: [] }],
    ['all capabilities for who asks for them', { capAdd: ['ALL'] }, { CapAdd: ['ALL'], CapDrop: [] }],
    ['read-only root', { readOnlyRootfs: true }, { ReadonlyRootfs: true }],
    ['init', { init: true }, { Init: true }],
    ['hosts', { extraHosts: ['a:1.2.3.4'] }, { ExtraHosts: ['a:1.2.3.4'] }],
    ['resolvers', { dns: ['9.9.9.9'] }, { Dns: ['9.9.9.9'] }],
    ['sysctls', { sysctls: { 'net.a': '1' } }, { Sysctls: { 'net.a': '1' } }],
    ['ulimits', { ulimits: { nofile: { soft: 1, hard: 2 } } }, { Ulimits: [{ Name: 'nofile', Soft: 1, Hard: 2 }] }],
    ['shared memory', { shmSizeBytes: 7 }, { ShmSize: 7 }],
    [
      'volume',
      { mounts: [{ kind: 'volume', source: 'shop_data', target: '/d', readOnly: true }] },
      {
        Mounts: [
          {
            Type: 'volume',
            Source: 'shop_data',
            Target: '/d',
            ReadOnly: true,
            VolumeOptions: { Labels: { 'rubato.cluster': 'c1' } },
          },
        ],
      },
    ],
    [
      'bind',
      { mounts: [{ kind: 'bind', source: '/h', target: '/d', readOnly: false }] },
      { Mounts: [{ Type: 'bind', Source: '/h', Target: '/d' }] },
    ],
    [
      'tmpfs',
      { mounts: [{ kind: 'tmpfs', source: '', target: '/t', readOnly: false, sizeBytes: 8 }] },
      { Mounts: [{ Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 8 } }] },
    ],
  ])('%s', (_name, spec, expected) => expect(hostOf(spec)).toMatchObject(expected))

  it("what the agent adds wins over the user's environment and comes beside the user's hosts", () => {
    const options = optionsOf(
      { environment: { RUBATO_INSTANCE: 'forged', A: '1' }, extraHosts: ['a:1.1.1.1'] },
      { extraEnvironment: { RUBATO_INSTANCE: 'real' }, extraHosts: ['b:2.2.2.2'] },
    )
    expect(options.Env).toEqual(['RUBATO_INSTANCE=real', 'A=1'])
    expect(options.HostConfig?.ExtraHosts).toEqual(['a:1.1.1.1', 'b:2.2.2.2'])
  })

  it('a sidecar joins the network of its main container and says nothing that belongs to that', () => {
    const options = optionsOf(
      { hostname: 'h', dns: ['9.9.9.9'], extraHosts: ['a:1.1.1.1'], sysctls: { 'net.a': '1' } },
      { sharesNetworkOf: 'abc' },
    )
    expect(options.HostConfig).toMatchObject({ NetworkMode: 'container:abc', Sysctls: {} })
    expect(options.HostConfig).not.toHaveProperty('Dns')
    expect(options.HostConfig).not.toHaveProperty('ExtraHosts')
    expect(options).not.toHaveProperty('Hostname')
    expect(options).not.toHaveProperty('ExposedPorts')
  })

  it('under a read-only root the directories of files become volumes; a file directly in the root is refused', () => {
    const file = (target: string) => ({ target, mode: 0o400, contentBase64: '', secret: true })
    expect(hostOf({ readOnlyRootfs: true, files: [file('/run/secrets/a'), file('/run/secrets/b')] })?.Mounts).toEqual([
      { Type: 'volume', Source: '', Target: '/run/secrets', ReadOnly: false },
    ])
    expect(() => optionsOf({ readOnlyRootfs: true, files: [file('/a')] })).toThrow(InputError)
  })
})

const inspected = (fields: { state?: object; labels?: Record<string, string>; name?: string } = {}) =>
  ({
    Id: 'id-1',
    Name: fields.name ?? '/shop.web.1.2',
    Config: {
      Image: 'a',
      Env: ['A=1'],
      Labels: fields.labels ?? {
        'rubato.cluster': 'c1',
        'rubato.node': 'n-1',
        'rubato.instance': 'shop/web/1/2',
        'rubato.spec-hash': 'h',
        'rubato.container': 'web',
      },
      ExposedPorts: { '80/tcp': {} },
    },
    State: {
      Status: 'running',
      Running: true,
      Dead: false,
      OOMKilled: false,
      ExitCode: 0,
      StartedAt: '2026-01-05T10:00:00.123456789Z',
      FinishedAt: '0001-01-01T00:00:00Z',
      ...fields.state,
    },
    NetworkSettings: {
      Networks: { 'rubato-n-1': { IPAddress: '10.1.2.3' } },
      Ports: { '80/tcp': [{ HostIp: '0.0.0.0', HostPort: '8080' }] },
    },
  }) as unknown as EngineInspectInfo

describe('what the operator allowed', () => {
  it('privileged reaches the engine; the node’s own network is refused with the reason', () => {
    expect(optionsOf({}).HostConfig?.Privileged).toBeUndefined()
    expect(optionsOf({ privileged: true }).HostConfig?.Privileged).toBe(true)
    expect(() => optionsOf({ hostNetwork: true })).toThrow(/beside the gateway/)
  })
})

describe('what an inspected container is to us', () => {
  it('running: its address, its start to the millisecond, its ports where they are', () => {
    expect(observedOf(inspected(), context)).toEqual({
      id: 'id-1',
      instance: 'shop/web/1/2',
      container: 'web',
      specHash: 'h',
      state: 'running',
      startedAtMs: Date.UTC(2026, 0, 5, 10, 0, 0, 123),
      exitedAtMs: null,
      exitCode: null,
      oomKilled: false,
      address: '10.1.2.3',
      portMap: { 80: 80 },
    })
  })

  it('exited, with code and time, also with an offset; never started is created', () => {
    const ended = { Status: 'exited', Running: false, ExitCode: 3, FinishedAt: '2026-01-05T12:00:01+02:00' }
    expect(observedOf(inspected({ state: ended }), context)).toMatchObject({
      state: 'exited',
      exitCode: 3,
      exitedAtMs: Date.UTC(2026, 0, 5, 10, 0, 1),
      address: null,
    })
    const fresh = { Status: 'created', Running: false, StartedAt: '0001-01-01T00:00:00Z', ExitCode: 127 }
    expect(observedOf(inspected({ state: fresh }), context)).toMatchObject({
      state: 'created',
      exitCode: null,
      startedAtMs: null,
    })
  })

  it('containers of another node, of another cluster, or unfinished ones are none of ours', () => {
    const labels = { 'rubato.cluster': 'c1', 'rubato.node': 'n-2', 'rubato.instance': 'shop/web/1/2' }
    expect(observedOf(inspected({ labels }), context)).toBeNull()
    expect(observedOf(inspected({ labels: { ...labels, 'rubato.node': 'n-1', 'rubato.cluster': 'c2' } }), context)).toBeNull()
    expect(observedOf(inspected({ name: '/rubato-unfinished.shop.web.1.2' }), context)).toBeNull()
  })

  it('a container of someone else with its published ports', () => {
    expect(foreignOf(inspected({ labels: { a: 'b' } }))).toMatchObject({
      name: 'shop.web.1.2',
      labels: { a: 'b' },
      address: '10.1.2.3',
      ports: [{ containerPort: 80, protocol: 'tcp', hostIp: '0.0.0.0', hostPort: 8080 }],
      running: true,
      healthy: null,
    })
  })

  it('a container of someone else counts as gone from the moment its stop is asked for, until it is started again', () => {
    const started = Date.UTC(2026, 0, 5, 10, 0, 0, 123)
    expect(foreignOf(inspected({}), started + 5).running).toBe(false)
    expect(foreignOf(inspected({}), started - 5).running).toBe(true)
  })

  it('its own stop signal, SIGTERM and SIGKILL stop it; a signal to reload does not', () => {
    expect(isStopSignal('15', undefined)).toBe(true)
    expect(isStopSignal('9', 'SIGQUIT')).toBe(true)
    expect(isStopSignal('3', 'SIGQUIT')).toBe(true)
    expect(isStopSignal('3', 'quit')).toBe(true)
    expect(isStopSignal('10', '10')).toBe(true)
    expect(isStopSignal('1', 'SIGTERM')).toBe(false)
    expect(isStopSignal('', 'nonsense')).toBe(false)
  })
})
