/** What every runtime promises (agent/runtime/runtime.ts), held against each of them. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { CreateContainer, LogLine, ObservedContainer, Runtime } from '../../agent/runtime/runtime.ts'
import { type Clock, sleep } from '../../shared/clock.ts'
import { NotFoundError, RetryableError } from '../../shared/errors.ts'
import { aContainerSpec, aUnitSpec } from '../builders/specs.ts'

export interface RuntimeSubject {
  readonly runtime: Runtime
  /** The same engine and disk seen by the next life of the agent. */
  reopen(): Promise<Runtime>
  readonly clock: Clock
  /** Lets virtual time pass; a real one waits by itself. */
  advance(ms: number): Promise<void>
  /** Image with /bin/sh, or '' for runtimes without images. */
  readonly image: string
  /** True when commands are really run, so that their output and exit codes can be seen. */
  readonly runsCommands: boolean
  close(): Promise<void>
}

/** Declares the suite; `make` gives a fresh subject for each test. */
export function runtimeContract(name: string, make: () => Promise<RuntimeSubject>): void {
  describe(`runtime contract: ${name}`, () => {
    let subject: RuntimeSubject
    beforeEach(async () => {
      subject = await make()
    })
    afterEach(async () => {
      await subject.close()
    })

    const requestOf = (
      fields: Partial<CreateContainer> = {},
      script = 'trap "exit 3" TERM; echo up; while :; do sleep 0.1; done',
    ): CreateContainer => ({
      instance: 'shop/web/1/1',
      specHash: 'hash-1',
      spec: aContainerSpec({ image: subject.image, entrypoint: ['/bin/sh', '-c'], command: [script] }),
      unit: aUnitSpec(),
      ports: [{ containerPort: 8080, protocol: 'http' }],
      sharesNetworkOf: null,
      extraEnvironment: { RUBATO_INSTANCE: 'shop/web/1/1' },
      extraHosts: [],
      ...fields,
    })
    /** Drives virtual time while a call is under way. */
    const run = async <T>(work: Promise<T>): Promise<T> => {
      let over = false
      const settled = work.finally(() => {
        over = true
      })
      settled.catch(() => {})
      for (let i = 0; i < 400 && !over; i += 1) await subject.advance(100)
      return settled
    }
    const until = async (what: string, check: () => Promise<boolean> | boolean) => {
      for (let i = 0; i < 200; i += 1) {
        if (await check()) return
        await subject.advance(100)
      }
      throw new Error(`never: ${what}`)
    }
    const only = async (runtime = subject.runtime): Promise<ObservedContainer> => {
      const all = await runtime.list()
      expect(all).toHaveLength(1)
      return all[0] as ObservedContainer
    }
    const up = async (request = requestOf()): Promise<string> => {
      const id = await run(subject.runtime.create(request))
      await run(subject.runtime.start(id))
      return id
    }

    it('creates, starts, stops and removes, and shows each state', async () => {
      const id = await run(subject.runtime.create(requestOf()))
      expect(await only()).toMatchObject({
        id,
        instance: 'shop/web/1/1',
        container: 'web',
        specHash: 'hash-1',
        state: 'created',
        address: null,
      })
      await run(subject.runtime.start(id))
      const running = await only()
      expect(running).toMatchObject({ id, state: 'running', exitCode: null })
      expect(running.address).not.toBeNull()
      expect(Object.keys(running.portMap)).toEqual(['8080'])
      expect(Math.abs((running.startedAtMs ?? 0) - subject.clock.now())).toBeLessThan(60_000)
      await run(subject.runtime.stop(id, 5_000))
      const stopped = await only()
      expect(stopped).toMatchObject({ state: 'exited', address: null })
      if (subject.runsCommands) expect(stopped.exitCode).toBe(3)
      await run(subject.runtime.remove(id))
      expect(await subject.runtime.list()).toEqual([])
    })

    it('every method may be repeated', async () => {
      const id = await up()
      expect(await run(subject.runtime.create(requestOf()))).toBe(id)
      await run(subject.runtime.start(id))
      const before = await only()
      await run(subject.runtime.start(id))
      expect((await only()).startedAtMs).toBe(before.startedAtMs)
      await run(subject.runtime.stop(id, 2_000))
      await run(subject.runtime.stop(id, 2_000))
      await run(subject.runtime.remove(id))
      await run(subject.runtime.remove(id))
      await run(subject.runtime.stop(id, 2_000))
    })

    it('row 15: another life of the agent sees the same container with the same start', async () => {
      await up()
      const before = await only()
      const again = await only(await subject.reopen())
      expect(again).toEqual(before)
    })

    it('row 16: a create after a lost reply gives the container that is there; another specification takes its place', async () => {
      const id = await run(subject.runtime.create(requestOf()))
      const later = await subject.reopen()
      expect(await run(later.create(requestOf()))).toBe(id)
      const other = await run(later.create(requestOf({ specHash: 'hash-2' })))
      expect((await only(later)).specHash).toBe('hash-2')
      expect((await only(later)).id).toBe(other)
    })

    it('can be started again after it ended, with a new start', async () => {
      const id = await up()
      const first = await only()
      await run(subject.runtime.stop(id, 5_000))
      await subject.advance(50)
      await run(subject.runtime.start(id))
      const second = await only()
      expect(second).toMatchObject({ id, state: 'running', exitCode: null })
      expect(second.startedAtMs ?? 0).toBeGreaterThan(first.startedAtMs ?? 0)
    })

    it('kills what does not stop within its grace', async () => {
      const id = await up(requestOf({}, 'trap "" TERM; echo up; while :; do sleep 0.1; done'))
      await run(subject.runtime.stop(id, subject.runsCommands ? 1_000 : 10))
      expect((await only()).state).toBe('exited')
      if (subject.runsCommands) expect((await only()).exitCode).toBe(137)
    })

    it('tells how it ended, and tells an event', async () => {
      const seen: string[] = []
      const abort = new AbortController()
      const following = (async () => {
        for await (const event of subject.runtime.events(abort.signal))
          seen.push(event.kind === 'changed' ? event.instance : event.kind)
      })()
      await subject.advance(300)
      await up(requestOf({}, 'sleep 0.3; exit 7'))
      if (subject.runsCommands) {
        await until('exited', async () => (await only()).state === 'exited')
        expect(await only()).toMatchObject({ exitCode: 7, oomKilled: false })
        expect((await only()).exitedAtMs).not.toBeNull()
      }
      await until('an event', () => seen.includes('shop/web/1/1'))
      abort.abort()
      await run(following)
    })

    it('runs a command inside and gives its exit code; one that takes too long is a RetryableError', async () => {
      const id = await up()
      expect(await run(subject.runtime.exec(id, ['/bin/sh', '-c', 'exit 0'], 5_000))).toBe(0)
      if (!subject.runsCommands) return
      expect(await subject.runtime.exec(id, ['/bin/sh', '-c', 'test "$RUBATO_INSTANCE" = shop/web/1/1 && exit 4'], 5_000)).toBe(4)
      await expect(subject.runtime.exec(id, ['/bin/sh', '-c', 'sleep 30'], 500)).rejects.toBeInstanceOf(RetryableError)
    })

    it('gives its log with time and stream, and follows it', async () => {
      const id = await up(requestOf({}, 'echo one; echo two >&2; sleep 0.5; echo three; sleep 60'))
      const abort = new AbortController()
      const lines: LogLine[] = []
      const following = (async () => {
        for await (const line of subject.runtime.logs(id, { follow: true, tail: 10 }, abort.signal)) lines.push(line)
      })()
      await until('lines', () => lines.length >= (subject.runsCommands ? 3 : 1))
      abort.abort()
      await run(following)
      if (subject.runsCommands) {
        expect(lines.map((line) => line.text).sort()).toEqual(['one', 'three', 'two'])
        expect(lines.find((line) => line.text === 'two')?.stream).toBe('stderr')
      }
      expect(Math.abs((lines[0]?.atMs ?? 0) - subject.clock.now())).toBeLessThan(60_000)
    })

    it('measures what runs and leaves out what does not', async () => {
      const id = await up()
      await subject.advance(300)
      const uses = await subject.runtime.stats([id, 'no-such-container'])
      expect(uses).toHaveLength(1)
      expect(uses[0]?.id).toBe(id)
      expect(uses[0]?.memoryBytes).toBeGreaterThan(0)
      await run(subject.runtime.stop(id, 2_000))
      expect(await subject.runtime.stats([id])).toEqual([])
    })

    it('starting what is not there is a NotFoundError', async () => {
      await expect(run(subject.runtime.start('no-such-container'))).rejects.toBeInstanceOf(NotFoundError)
    })

    it('a sidecar has a name of its own and ends on its own', async () => {
      const main = await up()
      const sidecar = await run(
        subject.runtime.create(
          requestOf({
            spec: aContainerSpec({ name: 'proxy', image: subject.image, entrypoint: ['/bin/sh', '-c'], command: ['sleep 60'] }),
            sharesNetworkOf: main,
          }),
        ),
      )
      await run(subject.runtime.start(sidecar))
      const all = await subject.runtime.list()
      expect(all.map((container) => [container.container, container.state]).sort()).toEqual([
        ['proxy', 'running'],
        ['web', 'running'],
      ])
      await run(subject.runtime.stop(sidecar, 0))
      await run(subject.runtime.remove(sidecar))
      expect((await only()).container).toBe('web')
    })
  })
}

/** `advance` for subjects that live in real time. */
export function realAdvance(clock: Clock): (ms: number) => Promise<void> {
  return (ms) => sleep(clock, Math.min(ms, 100))
}
