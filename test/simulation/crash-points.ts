/** Runs a story as it is, or with one process killed right after its n-th effect, and tells what went wrong. */
import { simCluster } from './cluster.ts'
import type { Effect } from './effects.ts'
import { type Stage, stageOf, type Story } from './stories.ts'

/** `agents`: whichever agent does the n-th effect of all of them. */
export type Victim = 'coordinator' | 'agents'

export interface Crash {
  readonly victim: Victim
  /** From 1. */
  readonly effect: number
}

export interface StoryOutcome {
  /** Effects of the victim while the story was told. */
  readonly effects: number
  readonly steps: number
  /** null: every promise was kept. */
  readonly failure: string | null
  readonly tail: string
}

const SEED = 11

export async function runStory(story: Story, victim: Victim, crashAt: number | null, tailLines = 120): Promise<StoryOutcome> {
  const cluster = await simCluster({ seed: SEED, ...story.options })
  const stage: Stage = stageOf(cluster, victim === 'agents' && crashAt !== null)
  let effects = 0
  let steps = 0
  const listen = (effect: Effect) => {
    if (effect.when !== 'after' || (effect.who === 'coordinator') !== (victim === 'coordinator')) return
    effects += 1
    if (effects !== crashAt) return
    cluster.trace.line(`${effect.who} dies after ${effect.kind} ${effect.what}`)
    if (victim === 'coordinator') cluster.killCoordinator()
    else cluster.killAgent(effect.who)
  }
  try {
    await story.before(stage)
    cluster.onEffect = listen
    await story.tell(stage)
    cluster.onEffect = null
    stage.keepServing('shop/web', null)
    const [leak] = cluster.trace.errors
    if (leak !== undefined && crashAt === null && !/the store did not take|notLeader/.test(leak))
      throw new Error(`an error was logged: ${leak}`)
    steps = cluster.invariants.checks
    return { effects, steps, failure: null, tail: '' }
  } catch (error) {
    return {
      effects,
      steps,
      failure: error instanceof Error ? error.message : String(error),
      tail: cluster.trace.tail(tailLines),
    }
  } finally {
    await cluster.stop()
  }
}
