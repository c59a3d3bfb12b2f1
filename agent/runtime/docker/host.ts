/** The host below the engine: what its interfaces use, and its commands. */
import { execFile } from 'node:child_process'
import { networkInterfaces } from 'node:os'
import type { RunCommand } from './network.ts'

/** The ranges that the interfaces of this host are in. */
export function hostSubnets(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) =>
    (list ?? []).flatMap((item) => (item.family === 'IPv4' && item.cidr ? [item.cidr] : [])),
  )
}

/** Runs the command on this host itself. */
export const runOnHost: RunCommand = ([file = '', ...args]) =>
  new Promise((resolve) => {
    execFile(file, args, { timeout: 10_000 }, (error, _stdout, stderr) =>
      resolve({
        code: error === null ? 0 : typeof error.code === 'number' ? error.code : 127,
        stderr: stderr || (error?.message ?? ''),
      }),
    )
  })
