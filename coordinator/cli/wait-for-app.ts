/** Waiting until an app is as it was deployed, or gone, with progress and the reason of a long wait. */
import { sleep } from '../../shared/clock.ts'
import type { AppView, ChangeView, ExplanationView, InstanceView } from '../api/schemas.ts'
import { CliError, EXIT } from './io.ts'
import { ago, counted, path, type Session } from './session.ts'

const POLL_MS = 500
/** A wait that is longer than this is explained. */
const EXPLAIN_AFTER_MS = 5000
/** How many services are asked why they are not ready. */
const ASKED_SERVICES = 5

/** Watches an app until every service has what it wants, or its update failed or was rolled back. */
export async function untilReady(session: Session, change: ChangeView, timeoutS: number): Promise<number> {
  const { io } = session
  const client = await session.client()
  const startedMs = io.clock.monotonicMs()
  for (;;) {
    const app = await client.get<AppView>(`/v1/apps${path(change.name)}`)
    const verdict = judge(app, change.revision)
    if (verdict.kind === 'ready') {
      const count = app.services.reduce((sum, { ready }) => sum + ready, 0)
      const took = ago(startedMs, io.clock.monotonicMs())
      session.print({ ...change, state: 'ready', services: app.services }, () => [
        `${app.name} is ready: revision ${app.revision}, ${counted(app.services.length, 'service')}, ${counted(count, 'instance')}${change.changed ? ` (${took})` : ', unchanged'}.`,
      ])
      return EXIT.ok
    }
    if (verdict.kind === 'failed') {
      session.endProgress()
      throw new CliError(
        EXIT.failed,
        `${app.name}: ${verdict.text}`,
        `"rubato explain ${verdict.service}" says more; "rubato events" what happened.`,
      )
    }
    const waitedMs = io.clock.monotonicMs() - startedMs
    if (waitedMs > timeoutS * 1000) {
      session.endProgress()
      throw new CliError(
        EXIT.timedOut,
        `${app.name} is not ready after ${timeoutS} s: ${verdict.text}`,
        `It goes on; "rubato explain ${verdict.service}" says what it waits for.`,
      )
    }
    const why = waitedMs > EXPLAIN_AFTER_MS ? await whyWaiting(session, verdict.open) : ''
    if (waitedMs >= 1000 || io.stderrIsTty) session.progress(`${verdict.text}${why}`)
    await pause(session)
  }
}

type Verdict =
  | { readonly kind: 'ready' }
  | { readonly kind: 'waiting'; readonly text: string; readonly service: string; readonly open: readonly string[] }
  | { readonly kind: 'failed'; readonly text: string; readonly service: string }

/** Whether a deploy of `revision` is through. Pure. */
function judge(app: AppView, revision: number): Verdict {
  const first = app.services[0]?.id ?? app.name
  if (app.revision > revision) {
    return {
      kind: 'failed',
      text: `revision ${revision} was replaced by revision ${app.revision} (rolled back, or somebody else deployed)`,
      service: first,
    }
  }
  for (const { id, rollout, job } of app.services) {
    const run = job?.cron === null ? job.runs[0] : undefined
    if (run?.outcome === 'failed') return { kind: 'failed', text: `job ${id} has failed: ${run.message}`, service: id }
    if (!rollout || rollout.toRevision < revision) continue
    if (rollout.phase === 'failed' || rollout.phase === 'rolling-back' || rollout.phase === 'paused') {
      return { kind: 'failed', text: `the update of ${id} is ${rollout.phase}. ${rollout.message}`, service: id }
    }
  }
  const open = app.services.filter(
    ({ updated, completed, desired, rollout, job }) =>
      (updated + completed < desired && (job === null || job.cron === null)) ||
      (rollout !== null && rollout.phase !== 'completed' && rollout.phase !== 'failed'),
  )
  const worst = open[0]
  if (!worst) return { kind: 'ready' }
  return {
    kind: 'waiting',
    text: open.map(({ name, updated, completed, desired }) => `${name} ${updated + completed}/${desired}`).join('  '),
    service: worst.id,
    open: open.map(({ id }) => id),
  }
}

/** What holds an instance up says more than why a service has its count; the first service's last reason is the fallback. */
async function whyWaiting(session: Session, serviceIds: readonly string[]): Promise<string> {
  const client = await session.client()
  let fallback = ''
  for (const id of serviceIds.slice(0, ASKED_SERVICES)) {
    const { reasons } = await client.get<ExplanationView>(`/v1/services${path(...id.split('/'))}/explain`)
    const held = reasons.findLast(({ subject }) => subject !== id)
    if (held) return ` · ${held.subject}: ${held.text}`
    const last = reasons.at(-1)
    if (fallback === '' && last !== undefined && last.code !== 'fixed') fallback = ` · ${last.text}`
  }
  return fallback
}

/** Watches a removed app until the coordinator knows it no more. */
export async function untilGone(session: Session, name: string, timeoutS: number): Promise<void> {
  const client = await session.client()
  const endMs = session.io.clock.monotonicMs() + timeoutS * 1000
  for (;;) {
    try {
      await client.get<AppView>(`/v1/apps${path(name)}`)
    } catch (error) {
      if (error instanceof CliError && error.exitCode === EXIT.notFound) return
      throw error
    }
    const left = await client.list<InstanceView>('/v1/instances', { app: name })
    session.progress(`${counted(left.length, 'instance')} left`)
    if (session.io.clock.monotonicMs() > endMs) {
      throw new CliError(
        EXIT.timedOut,
        `${name} still has ${counted(left.length, 'instance')} after ${timeoutS} s.`,
        `"rubato ps ${name}" shows them.`,
      )
    }
    await pause(session)
  }
}

async function pause({ io }: Session): Promise<void> {
  try {
    await sleep(io.clock, POLL_MS, io.signal)
  } catch (error) {
    if (io.signal.aborted) throw new CliError(EXIT.interrupted, 'Interrupted; the change itself goes on.')
    throw error
  }
}
