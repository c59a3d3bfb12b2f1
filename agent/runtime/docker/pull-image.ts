/** Pulling one image: as long as it moves, and no longer. */
import type { Readable } from 'node:stream'
import type { Clock } from '../../../shared/clock.ts'
import { NotFoundError, RetryableError } from '../../../shared/errors.ts'
import type { RegistryAuth } from '../runtime.ts'
import { engineError } from './docker-call.ts'
import type { Engine } from './engine.ts'

const PULL_IDLE_MS = 120_000
const PULL_TOTAL_MS = 30 * 60_000

/** As `Runtime.pull` promises. */
export async function pullImage(
  engine: Engine,
  clock: Clock,
  image: string,
  { auth, platform }: { readonly auth?: RegistryAuth; readonly platform?: string },
  signal: AbortSignal,
): Promise<void> {
  // Without a tag the engine would fetch every tag of the repository.
  const reference = /[@:][^/]+$/.test(image) ? image : `${image}:latest`
  const limit = new AbortController()
  const whole = AbortSignal.any([limit.signal, signal])
  const stream = (await engine.call(
    (abortSignal) =>
      engine.docker.pull(reference, {
        ...(platform ? { platform } : {}),
        ...(auth ? { authconfig: { username: auth.username, password: auth.password, serveraddress: auth.server } } : {}),
        abortSignal,
      }),
    { timeoutMs: PULL_IDLE_MS, signal },
  )) as Readable
  const giveUp = (text: string) => () => limit.abort(new RetryableError(text))
  const total = clock.setTimer(PULL_TOTAL_MS, giveUp(`the pull of ${image} took longer than ${PULL_TOTAL_MS} ms`))
  const stalled = giveUp(`the pull of ${image} made no progress for ${PULL_IDLE_MS} ms`)
  let idle = clock.setTimer(PULL_IDLE_MS, stalled)
  const onAbort = () => stream.destroy()
  whole.addEventListener('abort', onAbort, { once: true })
  try {
    let rest = ''
    for await (const chunk of stream) {
      idle.cancel()
      idle = clock.setTimer(PULL_IDLE_MS, stalled)
      const lines = (rest + String(chunk)).split('\n')
      rest = (lines.pop() ?? '').slice(-64 * 1024)
      for (const line of lines) throwPullError(line, image)
    }
    throwPullError(rest, image)
    whole.throwIfAborted()
  } catch (error) {
    if (whole.aborted) throw whole.reason
    throw engineError(error)
  } finally {
    total.cancel()
    idle.cancel()
    whole.removeEventListener('abort', onAbort)
  }
}

function throwPullError(line: string, image: string): void {
  if (!line.includes('"error"')) return
  let text: string
  try {
    text = (JSON.parse(line) as { error?: string }).error ?? ''
  } catch {
    return
  }
  if (text === '') return
  if (/not found|manifest unknown|does not exist|no matching manifest/i.test(text))
    throw new NotFoundError(`no image ${image}: ${text}`)
  throw new RetryableError(`pull of ${image}: ${text}`)
}
