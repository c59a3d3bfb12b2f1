import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { virtualClock } from '../../../test/fakes/virtual-clock.ts'
import { ConflictError, InputError, NotFoundError, RetryableError, UnavailableError } from '../../../shared/errors.ts'
import { engineCall, engineError } from './docker-call.ts'
import { createLogSplitter } from './docker-logs.ts'
import { cpuTotalMsOf, memoryBytesOf, networkOf, parseCgroupPaths, sumBlockIo, sumIoStat } from './plan-cgroup.ts'
import { chooseSubnet, gatewayOf } from './plan-subnet.ts'
import { tarOf } from './tar.ts'

describe('choosing a subnet', () => {
  it('never overlaps what is used, whatever the sizes, and uses the pool to the end', () => {
    const used: string[] = ['10.210.0.0/18', '10.210.200.5/32']
    for (;;) {
      const subnet = chooseSubnet('10.210.0.0/16', 20, used, 'c/n', used.length)
      if (subnet === null) break
      expect(used).not.toContain(subnet)
      used.push(subnet)
    }
    // 16 of /20, less 4 under the /18, less the one with the single address.
    expect(used).toHaveLength(2 + 11)
  })

  it('is stable for a name, knows its gateway, and gives null for a pool that is none', () => {
    const first = chooseSubnet('10.210.0.0/16', 24, [], 'c/n-1', 0) ?? ''
    expect(chooseSubnet('10.210.0.0/16', 24, [], 'c/n-1', 0)).toBe(first)
    expect(gatewayOf(first)).toBe(first.replace('.0/24', '.1'))
    expect(chooseSubnet('nonsense', 24, [], 'c', 0)).toBeNull()
    expect(chooseSubnet('10.0.0.0/8', 99, [], 'c', 0)).toBeNull()
  })
})

describe('calls of the engine', () => {
  it('row 19: a call that is not answered is given up as UnavailableError', async () => {
    const clock = virtualClock()
    const call = engineCall(clock, () => new Promise(() => {}), { timeoutMs: 1_000 })
    const outcome = expect(call).rejects.toBeInstanceOf(UnavailableError)
    await clock.advance(1_001)
    await outcome
    expect(clock.pendingTimers).toBe(0)
  })

  it('errors come in our words', () => {
    const http = (statusCode: number) => Object.assign(new Error('(HTTP code 1) x'), { statusCode, json: { message: 'text' } })
    expect(engineError(http(404))).toBeInstanceOf(NotFoundError)
    expect(engineError(http(409))).toBeInstanceOf(ConflictError)
    expect(engineError(http(400))).toBeInstanceOf(InputError)
    expect(engineError(http(500))).toBeInstanceOf(RetryableError)
    expect(engineError(http(500)).message).toBe('text')
    expect(engineError(Object.assign(new Error('x'), { code: 'ENOENT' }))).toBeInstanceOf(UnavailableError)
  })
})

describe('the log splitter', () => {
  it('property: however the stream is cut, the same lines come out', () => {
    const frame = (stream: number, text: string) => {
      const body = Buffer.from(text)
      const head = Buffer.alloc(8)
      head[0] = stream
      head.writeUInt32BE(body.length, 4)
      return Buffer.concat([head, body])
    }
    const whole = Buffer.concat([
      frame(1, '2026-01-05T10:00:00.5Z first\n'),
      frame(2, '2026-01-05T10:00:01Z wrong: ü\n2026-01-05T10:00:02Z '),
      frame(1, 'no time here\n'),
      frame(2, 'halves\n2026-01-05T10:00:03Z rest'),
    ])
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: whole.length })), (cuts) => {
        const splitter = createLogSplitter(false, () => 7)
        const at = [0, ...cuts.sort((a, b) => a - b), whole.length]
        const lines = at.slice(1).flatMap((end, index) => splitter.push(whole.subarray(at[index], end)))
        expect([...lines, ...splitter.end()]).toEqual([
          { atMs: Date.UTC(2026, 0, 5, 10, 0, 0, 500), stream: 'stdout', text: 'first' },
          { atMs: Date.UTC(2026, 0, 5, 10, 0, 1), stream: 'stderr', text: 'wrong: ü' },
          { atMs: 7, stream: 'stdout', text: 'no time here' },
          { atMs: Date.UTC(2026, 0, 5, 10, 0, 2), stream: 'stderr', text: 'halves' },
          { atMs: Date.UTC(2026, 0, 5, 10, 0, 3), stream: 'stderr', text: 'rest' },
        ])
      }),
    )
  })
})

describe('accounting files', () => {
  it('reads both versions and takes what is missing for 0', () => {
    expect(Object.fromEntries(parseCgroupPaths('4:memory:/docker/a\n2:cpu,cpuacct:/docker/a\n0::/x\n'))).toEqual({
      memory: '/docker/a',
      cpu: '/docker/a',
      cpuacct: '/docker/a',
      '': '/x',
    })
    expect(memoryBytesOf('1000\n', 'cache 1\ntotal_inactive_file 400\n')).toBe(600)
    expect(memoryBytesOf('1000\n', 'anon 5\ninactive_file 300\n')).toBe(700)
    expect(memoryBytesOf('100\n', 'inactive_file 300\n')).toBe(0)
    expect(cpuTotalMsOf('usage_usec 5000\nuser_usec 1\n')).toBe(5)
    expect(networkOf('head\n lo: 9 0 0 0 0 0 0 0 9 0\n eth0: 5 1 0 0 0 0 0 0 6 0\n')).toEqual({ rxBytes: 5, txBytes: 6 })
    expect(sumBlockIo('8:0 Read 5\n8:0 Write 6\n8:16 Read 1\nTotal 12\n')).toEqual({ blockReadBytes: 6, blockWriteBytes: 6 })
    expect(sumIoStat('8:0 rbytes=5 wbytes=6 rios=1\n')).toEqual({ blockReadBytes: 5, blockWriteBytes: 6 })
    expect(sumIoStat('')).toEqual({ blockReadBytes: 0, blockWriteBytes: 0 })
  })
})

describe('the tar writer', () => {
  it("writes what the system's own tar reads, long paths too, and refuses what the format cannot hold", () => {
    const long = `${'d'.repeat(90)}/${'e'.repeat(60)}/file`
    const archive = tarOf([
      { path: 'bin', mode: 0o755, content: null },
      { path: 'bin/sh', mode: 0o777, content: null, linkTo: 'busybox' },
      { path: long, mode: 0o640, content: Buffer.from('hello') },
    ])
    const listed = execFileSync('tar', ['-tvf', '-'], { input: archive, encoding: 'utf8' })
    expect(listed).toContain('drwxr-xr-x')
    expect(listed).toContain('bin/sh -> busybox')
    expect(listed).toContain(long)
    expect(execFileSync('tar', ['-xOf', '-', long], { input: archive, encoding: 'utf8' })).toBe('hello')
    expect(() => tarOf([{ path: 'x'.repeat(200), mode: 0, content: null }])).toThrow(InputError)
  })
})
