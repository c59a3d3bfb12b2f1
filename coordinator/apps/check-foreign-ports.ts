/** A published port is open on every node, so that it leads to one service of the whole cluster. Pure. */
import type { Fault } from '../../shared/errors.ts'
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'

export interface OtherApp {
  readonly name: string
  readonly spec: AppSpec
  /** It is on its way out: its ports will be free. */
  readonly removing: boolean
}

/** A fault, with its remedy, for each port of the app that another one publishes already; one of its own name does not count. */
export function checkForeignPorts(spec: AppSpec, others: Iterable<OtherApp>): readonly Fault[] {
  const taken = new Map<string, { readonly app: string; readonly service: string; readonly mode: string }>()
  for (const { name, spec: other, removing } of others) {
    if (name === spec.name || removing) continue
    for (const service of other.services)
      for (const port of service.published)
        taken.set(keyOf(port), { app: name, service: `${name}/${service.name}`, mode: port.mode })
  }
  return spec.services.flatMap(({ name, published }, index) =>
    published.flatMap((port, portIndex): Fault[] => {
      const holder = taken.get(keyOf(port))
      // Two that take the port of their own node's are kept on different nodes.
      if (holder === undefined || (holder.mode === 'host' && port.mode === 'host')) return []
      return [
        {
          path: `/spec/services/${index}/published/${portIndex}`,
          message: `port ${keyOf(port)} of ${spec.name}/${name} is already published by ${holder.service}`,
          hint: `publish another port, or take ${holder.app} down first`,
        },
      ]
    }),
  )
}

function keyOf({ port, protocol }: ServiceSpec['published'][number]): string {
  return `${port}/${protocol === 'udp' ? 'udp' : 'tcp'}`
}
