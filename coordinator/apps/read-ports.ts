/** `ports` and `expose`: which ports an instance has, and which of them nodes listen on. */
import type { PortProtocol, PublishedPort, UnitPort } from '../../shared/model/unit.ts'
import { fields, oneOf, text, texts, word } from './values.ts'
import { PORT_KEYS } from './compose-schema.ts'
import { child, children, type Cursor, isNull } from './located.ts'
import { type Report, shorten } from './report.ts'

/** Each port costs a listener on every node; ranges of media servers with thousands of ports need another way. */
const MAX_PORTS = 256
const LOOPBACK = /^(127\.\d+\.\d+\.\d+|localhost|::1|\[::1\])$/
const ANY = /^(0\.0\.0\.0|::|\[::\]|\*)?$/

export interface ReadPort {
  readonly containerPort: number
  readonly transport: 'tcp' | 'udp'
  /** What `app_protocol` says; null when it says nothing. */
  readonly appProtocol: 'http' | 'tcp' | null
  readonly name: string | null
  readonly published: { readonly port: number; readonly mode: 'ingress' | 'host' } | null
  readonly cursor: Cursor
}

/** All ports of a service in order, `ports` before `expose`; one port may be published several times. */
export function readPorts(report: Report, service: Cursor): ReadPort[] {
  const found: ReadPort[] = []
  const ports = child(service, 'ports')
  if (ports !== undefined && !isNull(ports.node)) {
    if (ports.node.kind !== 'list') report.fault(ports, '"ports" must be a list')
    else
      for (const { cursor } of children(ports))
        found.push(...(cursor.node.kind === 'map' ? longPort(report, cursor) : shortPort(report, cursor)))
  }
  for (const item of texts(report, child(service, 'expose'), '"expose"')) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/.exec(item.value)
    const range = match === null ? null : rangeOf(match[1], match[2])
    if (match === null || range === null) {
      report.fault(item.cursor, `"${shorten(item.value)}" is no port`, 'write for example "8080" or "8080/udp"')
      continue
    }
    for (const containerPort of range)
      if (!found.some((port) => port.containerPort === containerPort && port.transport === (match[3] ?? 'tcp')))
        found.push({
          containerPort,
          transport: match[3] === 'udp' ? 'udp' : 'tcp',
          appProtocol: null,
          name: null,
          published: null,
          cursor: item.cursor,
        })
  }
  if (found.length > MAX_PORTS) {
    report.fault(
      ports ?? service,
      `the service has ${found.length} ports; at most ${MAX_PORTS} are possible`,
      'each port costs a listener on every node: use a smaller range',
    )
    return found.slice(0, MAX_PORTS)
  }
  return found
}

/** Ports as units have them. `fallback` is the protocol of TCP ports that say nothing themselves. */
export function unitPorts(ports: readonly ReadPort[], fallback: PortProtocol): { ports: UnitPort[]; published: PublishedPort[] } {
  const units = new Map<string, UnitPort>()
  const published: PublishedPort[] = []
  for (const port of ports) {
    const protocol = protocolOf(port, fallback)
    const key = `${port.containerPort}/${protocol === 'udp' ? 'udp' : 'tcp'}`
    const known = units.get(key)
    if (known === undefined || (port.name !== null && known.name === undefined))
      units.set(key, {
        containerPort: port.containerPort,
        protocol: known?.protocol ?? protocol,
        ...(port.name === null ? {} : { name: port.name }),
      })
    if (port.published !== null)
      published.push({ port: port.published.port, containerPort: port.containerPort, protocol, mode: port.published.mode })
  }
  return { ports: [...units.values()], published }
}

export function protocolOf(port: ReadPort, fallback: PortProtocol): PortProtocol {
  if (port.transport === 'udp') return 'udp'
  return port.appProtocol ?? fallback
}

function shortPort(report: Report, cursor: Cursor): ReadPort[] {
  const value = text(report, cursor, 'a port')
  if (value === undefined) return []
  const match = /^(?:(.*):)?(\d+(?:-\d+)?)(?:\/(\w+))?$/.exec(value)
  if (match === null) return wrong(report, cursor, value)
  const before = match[1]
  const container = parseRange(match[2])
  const transport = match[3] ?? 'tcp'
  if (container === null) return wrong(report, cursor, value)
  if (transport !== 'tcp' && transport !== 'udp') {
    report.fault(cursor, `the protocol "${shorten(transport)}" is not supported`, 'tcp and udp are')
    return []
  }
  if (before === undefined)
    return combine(report, cursor, {
      container,
      host: null,
      address: '',
      transport,
      mode: 'ingress',
      appProtocol: null,
      name: null,
    })
  const split = /^(?:(.*):)?(\d*(?:-\d+)?)$/.exec(before)
  if (split === null) return wrong(report, cursor, value)
  const host = split[2] === '' ? null : parseRange(split[2])
  if (host === null && split[2] !== '') return wrong(report, cursor, value)
  return combine(report, cursor, {
    container,
    host,
    address: split[1] ?? '',
    transport,
    mode: 'ingress',
    appProtocol: null,
    name: null,
  })
}

function longPort(report: Report, cursor: Cursor): ReadPort[] {
  const port = fields(report, cursor, PORT_KEYS, 'a port')
  if (port === undefined) return []
  const target = port.get('target')
  const targetText = text(report, target, 'target')
  const container = targetText === undefined ? null : parseRange(targetText)
  if (target === undefined) report.fault(cursor, 'a port needs "target": the port inside the container')
  else if (container === null) report.fault(target, `"${shorten(targetText ?? '')}" is no port`)
  const published = port.get('published')
  const publishedText = text(report, published, 'published')
  const host = publishedText === undefined || publishedText === '' ? null : parseRange(publishedText)
  if (published !== undefined && publishedText !== '' && host === null)
    report.fault(published, `"${shorten(publishedText ?? '')}" is no port`)
  const transport = oneOf(report, port.get('protocol'), 'protocol', ['tcp', 'udp']) ?? 'tcp'
  const mode = oneOf(report, port.get('mode'), 'mode', ['ingress', 'host']) ?? 'ingress'
  const app = word(report, port.get('app_protocol'), 'app_protocol', 64)?.toLowerCase()
  const name = word(report, port.get('name'), 'name', 64) ?? null
  const address = text(report, port.get('host_ip'), 'host_ip') ?? ''
  if (container === null) return []
  return combine(report, cursor, {
    container,
    host,
    address,
    transport,
    mode,
    appProtocol: app === undefined ? null : appProtocol(report, port.get('app_protocol') ?? cursor, app),
    name,
  })
}

function appProtocol(report: Report, cursor: Cursor, value: string): 'http' | 'tcp' {
  if (/^(http|http\/?1(\.[01])?|ws|websocket)$/.test(value)) return 'http'
  if (/^(https|wss|tls|grpc|http\/?2|h2c?|grpcs)$/.test(value))
    report.warn(
      cursor,
      `app_protocol ${value} is passed through as tcp: the gateway cannot look inside, so it asks for no key there`,
    )
  return 'tcp'
}

interface Wanted extends Pick<ReadPort, 'transport' | 'appProtocol' | 'name'> {
  readonly container: readonly [number, number]
  readonly host: readonly [number, number] | null
  readonly address: string
  readonly mode: 'ingress' | 'host'
}

function combine(report: Report, cursor: Cursor, wanted: Wanted): ReadPort[] {
  const { container, transport, appProtocol: app, name } = wanted
  const count = container[1] - container[0] + 1
  if (count > MAX_PORTS) {
    report.fault(
      cursor,
      `a range of ${count} ports; at most ${MAX_PORTS} are possible`,
      'each port costs a listener on every node: use a smaller range',
    )
    return []
  }
  let host = wanted.host
  if (host !== null && LOOPBACK.test(wanted.address)) {
    report.warn(
      cursor,
      `published on ${wanted.address} only: that has no meaning across nodes, so no node listens on ${host[0]}; it can be reached through the gateway, within its access rules`,
    )
    host = null
  } else if (!ANY.test(wanted.address)) {
    report.fault(
      cursor,
      `a port cannot be published on the one address ${shorten(wanted.address)}`,
      'leave the address away: every node listens',
    )
    return []
  } else if (host === null)
    report.warn(cursor, `port ${container[0]} has no fixed port on the nodes; the gateway gives each instance one of 20000–29999`)
  if (host !== null && host[1] - host[0] + 1 !== count) {
    if (count > 1) {
      report.fault(cursor, `${host[1] - host[0] + 1} published ports do not match ${count} ports of the container`)
      return []
    }
    report.warn(cursor, `of the range ${host[0]}-${host[1]} the first port is used`)
  }
  const first = host === null ? null : host[0]
  if (first !== null && first + count > 20_000 && first < 30_000)
    report.warn(
      cursor,
      `port ${first} lies within 20000–29999, from which gateways give ports to instances; the node waits for it when it is taken`,
    )
  return Array.from({ length: count }, (_, index) => ({
    containerPort: container[0] + index,
    transport,
    appProtocol: app,
    name,
    published: first === null ? null : { port: first + index, mode: wanted.mode },
    cursor,
  }))
}

function wrong(report: Report, cursor: Cursor, value: string): [] {
  report.fault(
    cursor,
    `"${shorten(value)}" is no port`,
    'write "8080:80", "8080:80/udp" or "8000-8005:9000-9005", with ports from 1 to 65535',
  )
  return []
}

function parseRange(value: string | undefined): [number, number] | null {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(value ?? '')
  if (match === null) return null
  const first = Number(match[1])
  const last = Number(match[2] ?? match[1])
  return first >= 1 && last <= 65_535 && first <= last ? [first, last] : null
}

function rangeOf(first: string | undefined, last: string | undefined): number[] | null {
  const range = parseRange(last === undefined ? first : `${first}-${last}`)
  if (range === null) return null
  return Array.from({ length: Math.min(MAX_PORTS + 1, range[1] - range[0] + 1) }, (_, index) => range[0] + index)
}
