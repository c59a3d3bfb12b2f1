/**
 * The watchdog of a model machine: the real loop over the machine's lease, engine and clock, in a life of its own. It lives on
 * when the agent dies, and ends with the machine.
 */
import type { FenceHost } from '../../agent/fence/lease-keeper.ts'
import { runFence } from '../../agent/fence/fence-loop.ts'
import type { LeaseFile } from '../../agent/fence/lease-file.ts'
import type { FenceHands } from '../../agent/runtime/fence-hands.ts'
import type { Runtime } from '../../agent/runtime/runtime.ts'
import { messageOf } from '../../shared/errors.ts'
import type { EffectListener } from './effects.ts'
import type { Host } from './host-process.ts'
import { type Life, newLife } from './life.ts'
import type { Trace } from './trace.ts'

const LEASE_PATH = '/state/fence/lease'
/** The whole life of a machine is one boot. */
const BOOT_ID = 'boot'
/** How long a program takes to come up. */
const BEGIN_MS = 150

/** What the agent of that life has of its machine. */
export function modelFenceHost(
  host: Host,
  life: Life,
  runtime: Runtime,
  { trace, tell }: { readonly trace: Trace; readonly tell: EffectListener },
): FenceHost {
  const lease: LeaseFile = {
    read: () => host.disk.get(LEASE_PATH) ?? null,
    write(text) {
      const before = host.disk.get(LEASE_PATH) ?? ''
      // In place: only growth needs room.
      if (host.diskFull && text.length > before.length) throw new Error('ENOSPC: no space left on device')
      host.disk.set(LEASE_PATH, text)
      if (before === '') tell({ who: host.name, kind: 'disk', what: LEASE_PATH, when: 'after' })
    },
    remove: () => void host.disk.delete(LEASE_PATH),
  }
  return {
    lease: life.own(lease),
    bootId: BOOT_ID,
    steadyMs: () => host.clock.monotonicMs(),
    watchdog: {
      isAlive: () => host.watchdog?.alive === true,
      start: () =>
        new Promise((resolve) => {
          // Asked for, it comes up whatever becomes of who asked.
          host.clock.setTimer(BEGIN_MS, () => {
            beginWatchdog(host, lease, handsOf(host, runtime), trace)
            if (life.alive) resolve()
          })
        }),
    },
  }
}

export function killWatchdogOn(host: Host, trace: Trace): void {
  if (!host.watchdog?.alive) return
  trace.line(`${host.name} watchdog is killed`)
  host.watchdog.end()
}

function beginWatchdog(host: Host, lease: LeaseFile, hands: FenceHands, trace: Trace): void {
  if (host.gone) return
  host.watchdog?.end()
  const life = newLife(host.clock)
  host.watchdog = life
  trace.line(`${host.name} watchdog starts`)
  runFence({
    lease,
    hands: { docker: life.own(hands) },
    bootId: BOOT_ID,
    steadyMs: () => host.clock.monotonicMs(),
    clock: life.clock,
    logger: trace.logger(`${host.name} watchdog`),
    isOver: () => host.watchdog !== life,
  }).then(
    () => {
      if (host.watchdog === life) trace.line(`${host.name} watchdog ends`)
      life.end()
    },
    (error: unknown) => trace.logger(host.name).error('the watchdog failed', { error: messageOf(error) }),
  )
}

function handsOf(host: Host, runtime: Runtime): FenceHands {
  return {
    runs: async (id) => host.engine.containers.get(id)?.state === 'running',
    stop: (id, graceMs) => runtime.stop(id, graceMs),
    kill: (id) => host.engine.kill(id),
  }
}
