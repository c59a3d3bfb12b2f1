/** Puts virtual addresses on the bridge, so that containers can reach them. Needs CAP_NET_ADMIN; on loopback nothing is to be done. */
import type { Logger } from '../../../shared/logger.ts'
import { messageOf } from '../../../shared/errors.ts'

export interface VirtualAddresses {
  /** Makes the address one of this node's; repeating it is fine. */
  add(address: string): Promise<void>
  /** Takes it away; absent is fine. */
  remove(address: string): Promise<void>
  /** Those that are there now, as far as this adapter made them. */
  list(): Promise<readonly string[]>
}

/** All of 127.0.0.0/8 belongs to a Linux host already. */
export function loopbackAddresses(): VirtualAddresses {
  return { add: async () => {}, remove: async () => {}, list: async () => [] }
}

/** Runs a program; rejects with its message when it fails. */
export type RunCommand = (command: string, argv: readonly string[]) => Promise<string>

/**
 * Addresses as /32 of a network device, made with `ip addr`. They carry label `<device>:rb`, by which those of an earlier
 * process are found again.
 */
export function deviceAddresses(device: string, run: RunCommand, logger: Logger): VirtualAddresses {
  const label = `${device}:rb`.slice(-15)
  const labelled = label.startsWith(device) ? ['label', label] : []
  return {
    async add(address) {
      await run('ip', ['addr', 'replace', `${address}/32`, 'dev', device, ...labelled])
    },
    async remove(address) {
      try {
        await run('ip', ['addr', 'del', `${address}/32`, 'dev', device])
      } catch (error) {
        logger.debug('virtual address was not there', { address, device, error: messageOf(error) })
      }
    },
    async list() {
      const text = await run('ip', ['-4', '-o', 'addr', 'show', 'dev', device])
      const found: string[] = []
      for (const line of text.split('\n')) {
        const match = / inet ([\d.]+)\/32 /.exec(line)
        if (match?.[1] && (labelled.length === 0 || line.includes(label))) found.push(match[1])
      }
      return found
    },
  }
}
