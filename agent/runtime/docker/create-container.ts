/**
 * Making one container so that it can be repeated after any death: under a name of its own, taken for done when it is there
 * with the same specification, and with its final name only once its files are in it.
 */
import { posix } from 'node:path'
import type Docker from 'dockerode'
import { ConflictError, NotFoundError, RetryableError } from '../../../shared/errors.ts'
import type { CreateContainer } from '../runtime.ts'
import { unless } from './docker-call.ts'
import { createOptionsOf, finalNameOf, LABEL, type MappingContext } from './docker-mapping.ts'
import { CREATE_TIMEOUT_MS, type Engine } from './engine.ts'
import { type TarEntry, tarOf } from './tar.ts'

export interface CreateContainerDeps {
  readonly engine: Engine
  readonly clusterId: string
  readonly nodeId: string
  readonly context: () => MappingContext
  /** Finds or makes the node's network when the engine no longer knows it. */
  readonly refreshNetwork: () => Promise<void>
}

/** As `Runtime.create` promises. */
export async function createContainer(deps: CreateContainerDeps, request: CreateContainer): Promise<string> {
  const { engine } = deps
  const wanted = createOptionsOf(request, deps.context())
  const name = finalNameOf(request)
  for (let attempt = 0; attempt < 3; attempt += 1) {
    const there = await byName(engine, name)
    if (there) {
      if (!isOwn(deps, there, request.instance))
        throw new ConflictError(`the name ${name} is taken by a container that is not this instance's`)
      const same = there.Config.Labels?.[LABEL.specHash] === request.specHash && !there.State.Dead
      // A sidecar in the network of a container that is gone can never start.
      const network = there.HostConfig.NetworkMode ?? ''
      if (same && network === wanted.HostConfig?.NetworkMode) return there.Id
      await engine.remove(there.Id)
    }
    if (wanted.name !== name) {
      const unfinished = await byName(engine, wanted.name ?? '')
      if (unfinished) {
        if (!isOwn(deps, unfinished, request.instance)) throw new ConflictError(`the name ${wanted.name} is taken`)
        await engine.remove(unfinished.Id)
      }
    }
    try {
      const container = await engine.call((abortSignal) => engine.docker.createContainer({ ...wanted, abortSignal }), {
        timeoutMs: CREATE_TIMEOUT_MS,
      })
      if (wanted.name !== name) {
        for (const { directory, entries } of archivesOf(request.spec))
          await engine.call((abortSignal) => container.putArchive(tarOf(entries), { path: directory, abortSignal }), {
            timeoutMs: CREATE_TIMEOUT_MS,
          })
        await engine.call((abortSignal) => container.rename({ name, abortSignal }))
      }
      return container.id
    } catch (error) {
      // Someone was faster with the name: look who.
      if (error instanceof ConflictError && attempt < 2) continue
      if (error instanceof NotFoundError && /network/i.test(error.message)) {
        await deps.refreshNetwork()
        continue
      }
      throw error
    }
  }
  throw new RetryableError(`the container ${name} could not be created`)
}

/** The container that has the name; null when none has. */
function byName(engine: Engine, name: string): Promise<Docker.ContainerInspectInfo | null> {
  return unless(['not-found'], engine.inspect(name))
}

function isOwn({ clusterId, nodeId }: CreateContainerDeps, info: Docker.ContainerInspectInfo, instance: string): boolean {
  const labels = info.Config.Labels ?? {}
  return labels[LABEL.cluster] === clusterId && labels[LABEL.node] === nodeId && labels[LABEL.instance] === instance
}

/** What goes into the container before its start. A read-only root takes only archives that end in one of its volumes. */
function archivesOf(spec: CreateContainer['spec']): { readonly directory: string; readonly entries: readonly TarEntry[] }[] {
  const byDirectory = new Map<string, TarEntry[]>()
  for (const file of spec.files) {
    const target = posix.resolve('/', file.target)
    const directory = spec.readOnlyRootfs ? posix.dirname(target) : '/'
    const entry = {
      path: posix.relative(directory, target),
      mode: file.mode,
      content: Buffer.from(file.contentBase64, 'base64'),
    }
    byDirectory.set(directory, [...(byDirectory.get(directory) ?? []), entry])
  }
  return [...byDirectory].map(([directory, entries]) => ({ directory, entries }))
}
