/**
 * A wall clock that a test moves under a running process (libfaketime); monotonic time stays true. The process must be started with
 * `environment`, which its children inherit.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PACKAGES } from './packages.ts'

export interface FakeClock {
  readonly environment: Readonly<Record<string, string>>
  /** Seconds from the true time; takes effect at once. */
  set(offsetS: number): void
  remove(): void
}

/** Runs true until it is set. */
export function fakeClock(name: string): FakeClock {
  const dir = mkdtempSync(join(tmpdir(), `rubato-clock-${name}-`))
  const file = join(dir, 'offset')
  const set = (offsetS: number) => writeFileSync(file, `${offsetS < 0 ? '' : '+'}${offsetS}s\n`)
  set(0)
  return {
    environment: {
      LD_PRELOAD: PACKAGES.libfaketime ?? '',
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: '1',
      DONT_FAKE_MONOTONIC: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    },
    set,
    remove: () => rmSync(dir, { recursive: true, force: true }),
  }
}
