/** What a container may do beyond its own walls: privileges, capabilities, namespaces of the host, security options. */
import type { Context } from './context.ts'
import type { Cursor } from './located.ts'
import { shorten } from './report.ts'
import { flag, text, texts } from './values.ts'

/** Capabilities with which a container can take over its host. */
export const ROOT_CAPABILITIES = new Set([
  'ALL',
  'SYS_ADMIN',
  'SYS_MODULE',
  'SYS_RAWIO',
  'SYS_BOOT',
  'DAC_READ_SEARCH',
  'BPF',
  'SYS_TIME',
  'MAC_ADMIN',
  'MAC_OVERRIDE',
])

/** Reports keys whose support depends on their value. */
export function refusePrivileges(context: Context, get: (key: string) => Cursor | undefined): void {
  const { report, policy } = context
  const privileged = get('privileged')
  if (flag(report, privileged, 'privileged') === true && !policy.allowPrivileged && privileged !== undefined)
    report.fault(
      privileged,
      'privileged containers are forbidden: they are root on the node',
      'name the capabilities that it needs in "cap_add"; those that amount to root are forbidden too',
    )
  const only = (key: string, allowed: readonly string[], why: string): void => {
    const at = get(key)
    const value = text(report, at, key)
    if (at !== undefined && value !== undefined && !allowed.includes(value))
      report.fault(at, `${key}: ${shorten(value)} is not supported: ${why}`)
  }
  only('ipc', ['private', 'shareable', 'none', ''], 'instances do not share memory with others or the host')
  only('uts', ['', 'private'], 'an instance has a host name of its own')
  only('cgroup', ['private'], 'it would show the host')
  only('isolation', ['default'], 'it is for Windows containers')
  only('runtime', ['runc'], 'another runtime of the engine cannot be chosen yet')
  for (const item of texts(report, get('security_opt'), '"security_opt"')) {
    if (/^no-new-privileges([:=]false)?$/.test(item.value) && /false$/.test(item.value)) continue
    if (/^no-new-privileges([:=]true)?$/.test(item.value))
      report.warn(item.cursor, 'no-new-privileges is not passed on yet: set-uid programs in the image keep working')
    else if (/^label[:=]/.test(item.value))
      report.warn(item.cursor, `security_opt ${shorten(item.value)} is ignored: labels are the node's to set`)
    else if (/unconfined$|^systempaths/.test(item.value))
      report.fault(
        item.cursor,
        `security_opt ${shorten(item.value)} is forbidden: it switches a protection of the node off`,
        'leave it away and see whether the image needs it',
      )
    else
      report.fault(
        item.cursor,
        `security_opt ${shorten(item.value)} is not supported: nodes have no such profile`,
        'leave it away: the default profile applies',
      )
  }
}

/** Names without `CAP_`; forbidden ones are faults. */
export function readCapabilities(context: Context, cursor: Cursor | undefined, isAdded: boolean): string[] {
  return texts(context.report, cursor, isAdded ? '"cap_add"' : '"cap_drop"', false).flatMap((item) => {
    const name = item.value.toUpperCase().replace(/^CAP_/, '')
    if (!/^[A-Z_]{2,40}$/.test(name)) {
      context.report.fault(item.cursor, `"${shorten(item.value)}" is no capability`)
      return []
    }
    if (isAdded && ROOT_CAPABILITIES.has(name) && !context.policy.allowPrivileged) {
      context.report.fault(
        item.cursor,
        `the capability ${name} is forbidden: with it a container can take over the node`,
        'leave it away; no setting of the coordinator allows it',
      )
      return []
    }
    return [name]
  })
}
