/** How a service meets others by the network: the networks of the file, network_mode, and names of hosts. */
import { isIP } from 'node:net'
import { nearest } from '../../shared/nearest.ts'
import { SERVICE_NETWORK_KEYS } from './compose-schema.ts'
import type { Context } from './context.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { type Report, shorten } from './report.ts'
import { fields, text, texts } from './values.ts'

/** The service whose network it shares; null when it has one of its own, or the host's. */
export function readNetworkMode(
  context: Context,
  get: (key: string) => Cursor | undefined,
): { readonly service: string; readonly cursor: Cursor } | null {
  const { report, policy } = context
  const cursor = get('network_mode')
  const mode = text(report, cursor, 'network_mode')
  if (cursor === undefined || mode === undefined || mode === 'bridge' || mode === 'default' || mode === '') return null
  if (get('networks') !== undefined && mode !== 'host') report.fault(cursor, 'network_mode and networks exclude each other')
  if (mode.startsWith('service:')) return { service: mode.slice(8), cursor }
  if (mode === 'host') {
    if (!policy.allowHostNetwork)
      report.fault(
        cursor,
        "the host's network is forbidden: authorization at the gateway could be walked around",
        'leave it away and publish "ports"; no setting of the coordinator allows it',
      )
  } else if (mode === 'none')
    report.fault(
      cursor,
      'network_mode none is not supported: every instance has an address',
      'leave it away; without "ports" and "expose" nothing leads to it',
    )
  else if (mode.startsWith('container:'))
    report.fault(cursor, 'containers outside of the app cannot be joined', 'use "service:<name>" for a service of this file')
  else report.fault(cursor, `network_mode "${shorten(mode)}" is not supported`, 'service:<name> and bridge are')
  return null
}

/** Checks that they are declared, and that nothing is asked of them that would be ignored. */
export function checkNetworks(context: Context, cursor: Cursor | undefined, service: string): void {
  const { report } = context
  if (cursor === undefined || isNull(cursor.node)) return
  const named: { name: string; cursor: Cursor }[] = []
  if (cursor.node.kind === 'map')
    for (const { key, keyAt, cursor: value } of children(cursor)) {
      if (key.startsWith('x-')) continue
      named.push({ name: key, cursor: { ...value, at: keyAt } })
      const options = child(value, 'aliases')
      // An alias that is the service's own name resolves.
      if (
        value.node.kind === 'map' &&
        !(
          value.node.entries.length === 1 &&
          options !== undefined &&
          texts(report, options, 'aliases').every((item) => item.value === service)
        )
      )
        fields(report, value, SERVICE_NETWORK_KEYS, `network "${shorten(key)}"`)
      else if (value.node.kind !== 'map' && !isNull(value.node))
        report.fault(value, `network "${shorten(key)}" must be a map of keys`)
    }
  else for (const item of texts(report, cursor, '"networks"', false)) named.push({ name: item.value, cursor: item.cursor })
  for (const item of named)
    if (item.name !== 'default' && !context.networks.has(item.name)) {
      const near = nearest(item.name, context.networks.keys())
      report.fault(
        item.cursor,
        `the network "${shorten(item.name)}" is not declared`,
        near === null ? `add "${item.name}:" under the top-level "networks:"` : `did you mean "${near}"?`,
      )
    }
}

/** `host:address` each. */
export function readExtraHosts(report: Report, cursor: Cursor | undefined): string[] {
  const given =
    cursor?.node.kind === 'map'
      ? children(cursor).flatMap(({ key, cursor: value }) =>
          texts(report, value, `addresses of ${shorten(key)}`).map((item) => ({
            host: key,
            address: item.value,
            at: item.cursor,
          })),
        )
      : texts(report, cursor, '"extra_hosts"', false).map((item) => {
          const match = /^([^\s:=]+)\s*[:=]\s*(\S+)$/.exec(item.value)
          return { host: match?.[1] ?? '', address: match?.[2] ?? '', at: item.cursor }
        })
  return given.flatMap(({ host, address, at }) => {
    const plain = stripBrackets(address)
    if (host !== '' && (plain === 'host-gateway' || isIP(plain) !== 0)) return [`${host}:${plain}`]
    report.fault(at, `"${shorten(`${host}:${address}`)}" is not host:address`, 'the address is an IP address or "host-gateway"')
    return []
  })
}

function stripBrackets(address: string): string {
  return address.replace(/^\[(.*)\]$/, '$1')
}
