/** Images pulled ahead by a real engine from a registry of ours. Needs root, docker.io and iptables. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createPullAhead } from '../../agent/reconcile/pull-ahead-loop.ts'
import { createDockerRuntime, type DockerRuntime } from '../../agent/runtime/docker/docker-runtime.ts'
import { systemClock } from '../../shared/clock.ts'
import { silentLogger } from '../../shared/logger.ts'
import { type LabDockerd, startDockerd } from '../lab/dockerd.ts'
import { type LabRegistry, startRegistry } from '../lab/registry.ts'

const clock = systemClock()
const base = mkdtempSync(join(tmpdir(), 'rb-ahead-'))
let engine: LabDockerd
let registry: LabRegistry
let runtime: DockerRuntime

beforeAll(async () => {
  registry = await startRegistry()
  engine = await startDockerd(base)
  runtime = await createDockerRuntime({
    socketPath: engine.socket,
    clusterId: 'lab',
    nodeId: 'n-1',
    clock,
    logger: silentLogger(),
  })
})
afterAll(async () => {
  await runtime?.destroy()
  await engine?.stop()
  await registry?.stop()
  rmSync(base, { recursive: true, force: true })
})

describe('images pulled ahead by a real engine', () => {
  it('B9: gives way to an instance in the middle of a layer, comes when that is done, and one that is nowhere harms no other', async () => {
    for (const name of ['shop/web:2', 'shop/other:1']) registry.add(name)
    const [web, missing, other] = ['shop/web:2', 'shop/missing:1', 'shop/other:1'].map((name) => registry.nameOf(name)) as [
      string,
      string,
      string,
    ]
    const instances = new Set<string>()
    const ahead = createPullAhead({
      runtime,
      clock,
      logger: silentLogger(),
      instancePulls: () => instances,
      tell: () => undefined,
    })
    ahead.start()
    try {
      registry.slow = true
      ahead.want([{ image: web }, { image: missing }])
      await vi.waitUntil(() => registry.underWay === 1, { timeout: 30_000 })

      instances.add(other)
      ahead.poke()
      await vi.waitUntil(() => ahead.counters.aborted === 1, { timeout: 30_000 })
      await vi.waitUntil(() => registry.underWay === 0, { timeout: 30_000 })
      registry.slow = false
      await runtime.pull(other, {}, new AbortController().signal)
      expect(ahead.answer().pending).toContain(web)
      instances.clear()
      ahead.poke()

      await vi.waitUntil(() => ahead.answer().pending.length === 0, { timeout: 30_000 })
      expect(ahead.answer()).toEqual({ here: [web], pending: [], failing: [missing] })
      expect(await runtime.hasImage(web)).toBe(true)
      expect(await runtime.hasImage(missing)).toBe(false)
    } finally {
      await ahead.stop()
    }
  }, 180_000)
})
