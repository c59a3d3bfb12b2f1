/**
 * What lasts beyond the process that did it: a commit, a call to a cloud, a message, an engine call, a write to disk. Scenarios
 * listen here to kill a process at exactly such an instant.
 */
import type { Provider } from '../../coordinator/providers/provider.ts'
import type { Files } from '../../shared/files.ts'
import type { Connection } from '../../shared/protocol/connection.ts'

export type EffectKind = 'commit' | 'cloud' | 'message' | 'engine' | 'disk'

export interface Effect {
  /** `coordinator`, or the host of the agent. */
  readonly who: string
  readonly kind: EffectKind
  /** For people: the operation and its subject. */
  readonly what: string
  /** `before`: asked for, nothing has happened. `after`: it has happened, and who asked does not know yet. */
  readonly when: 'before' | 'after'
}

export type EffectListener = (effect: Effect) => void

/** The provider as its coordinator sees it, with its calls that change something told. */
export function tellingProvider(provider: Provider, tell: EffectListener): Provider {
  const told = async <T>(what: string, call: () => Promise<T>): Promise<T> => {
    tell({ who: 'coordinator', kind: 'cloud', what, when: 'before' })
    try {
      return await call()
    } finally {
      tell({ who: 'coordinator', kind: 'cloud', what, when: 'after' })
    }
  }
  return {
    name: provider.name,
    create: (request, signal) => told(`create ${request.name}`, () => provider.create(request, signal)),
    delete: (machine, signal) => told(`delete ${machine.name}`, () => provider.delete(machine, signal)),
    list: (tags, signal) => provider.list(tags, signal),
    offerings: (signal) => provider.offerings(signal),
  }
}

/** The coordinator's end of a connection. Loads, which come every second and change nothing, are not told. */
export function tellingConnection(connection: Connection, nodeId: string, tell: EffectListener): Connection {
  return {
    send(text) {
      const type = /^\{"type":"(\w+)"/.exec(text)?.[1] ?? '?'
      if (type === 'loads') return connection.send(text)
      tell({ who: 'coordinator', kind: 'message', what: `${type} to ${nodeId}`, when: 'before' })
      connection.send(text)
      tell({ who: 'coordinator', kind: 'message', what: `${type} to ${nodeId}`, when: 'after' })
    },
    bufferedBytes: () => connection.bufferedBytes(),
    answeredMs: () => connection.answeredMs(),
    close: (code, reason) => connection.close(code, reason),
    onMessage: (handler) => connection.onMessage(handler),
    onClose: (handler) => connection.onClose(handler),
  }
}

/** An agent's disk. While `isFull` says so nothing can be written. */
export function tellingFiles(files: Files, who: string, isFull: () => boolean, tell: EffectListener): Files {
  return {
    read: (path) => files.read(path),
    list: (directory) => files.list(directory),
    remove: (path) => files.remove(path),
    async write(path, text, mode) {
      tell({ who, kind: 'disk', what: path, when: 'before' })
      if (isFull()) throw new Error('ENOSPC: no space left on device')
      await files.write(path, text, mode)
      tell({ who, kind: 'disk', what: path, when: 'after' })
    },
  }
}
