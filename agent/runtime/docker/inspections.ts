/** What was inspected, kept until an event or a changed summary says otherwise: a look at everything costs one list. */
import type Docker from 'dockerode'
import { unless } from './docker-call.ts'
import type { Engine } from './engine.ts'

/** So many inspections at a time. */
const AT_ONCE = 8

export interface Inspections {
  /** Inspections of what the list shows, without what is gone by now: kept ones while events flow and the summary is the same. */
  of(list: readonly Docker.ContainerInfo[]): Promise<Docker.ContainerInspectInfo[]>
  /** The kept one, however old, or a new one; null when the container is gone. */
  one(id: string): Promise<Docker.ContainerInspectInfo | null>
  forget(id: string): void
  /** Forgets those that `keep` does not hold for. */
  retain(keep: (info: Docker.ContainerInspectInfo) => boolean): void
  /** Events are being read from now on; returns what ends that. Everything is forgotten at both: what happened while nobody listened is in no stream. */
  watch(): () => void
}

export function createInspections(engine: Engine): Inspections {
  /** By id; `summary` is what the list said when it was inspected. */
  const inspected = new Map<string, { readonly summary: string; readonly info: Docker.ContainerInspectInfo }>()
  let watching = 0
  const look = (id: string) => unless(['not-found'], engine.inspect(id))
  return {
    async of(list) {
      const infos: Docker.ContainerInspectInfo[] = []
      for (let i = 0; i < list.length; i += AT_ONCE) {
        const found = await Promise.all(
          list.slice(i, i + AT_ONCE).map(async (item) => {
            const summary = `${item.State} ${item.Names.join(',')}`
            const kept = inspected.get(item.Id)
            if (kept?.summary === summary && watching > 0) return kept.info
            const info = await look(item.Id)
            if (info) inspected.set(item.Id, { summary, info })
            else inspected.delete(item.Id)
            return info
          }),
        )
        for (const info of found) if (info) infos.push(info)
      }
      return infos
    },
    async one(id) {
      const kept = inspected.get(id)
      if (kept) return kept.info
      const info = await look(id)
      // Without a summary: the next look at the list asks again.
      if (info?.State.Running && !inspected.has(id)) inspected.set(id, { summary: '', info })
      return info
    },
    forget: (id) => void inspected.delete(id),
    retain(keep) {
      for (const [id, { info }] of inspected) if (!keep(info)) inspected.delete(id)
    },
    watch() {
      watching += 1
      inspected.clear()
      return () => {
        watching -= 1
        inspected.clear()
      }
    },
  }
}
