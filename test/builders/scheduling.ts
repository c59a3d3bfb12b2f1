/** Questions and answers of custom schedulers, and schedulers that a test drives. */
import { API_VERSION, type Question } from '../../coordinator/schedulers/protocol.ts'
import type { Reply, Scheduler } from '../../coordinator/schedulers/scheduler.ts'

export function aQuestion(nodeIds: readonly string[] = ['n-1', 'n-2']): Question {
  const capacity = { cpuMillis: 4_000, memoryBytes: 8 * 2 ** 30, diskBytes: 0, slots: 100 }
  return {
    apiVersion: API_VERSION,
    scheduler: 'test',
    dryRun: false,
    service: {
      id: 'shop/web',
      app: 'shop',
      name: 'web',
      labels: {},
      priority: 50,
      charge: { cpuMillis: 100, memoryBytes: 100, diskBytes: 0 },
      images: [],
      volumes: [],
      near: [],
      avoid: [],
    },
    count: 1,
    nodes: nodeIds.map((id) => ({
      id,
      hostname: id,
      labels: {},
      engineLabels: {},
      taints: [],
      platform: 'linux/amd64',
      pool: null,
      provider: null,
      zone: null,
      capacity,
      free: capacity,
      usePercent: null,
      instances: 0,
      ofService: 0,
      hasImages: false,
    })),
    leftOut: 0,
  }
}

/** The text of an answer that says the same of each node of the question, or what `verdict` says of it. */
export function answerTo(question: Question, verdict: (id: string) => object): string {
  return JSON.stringify({ apiVersion: API_VERSION, nodes: question.nodes.map(({ id }) => ({ id, ...verdict(id) })) })
}

export interface TestScheduler extends Scheduler {
  /** Every question so far. */
  readonly questions: Question[]
  /** Lever: what it answers. `'hang'`: never. */
  reply: (question: Question) => string | Reply | 'hang'
}

/** Accepts every node with a score of 50 until told otherwise. */
export function testScheduler(
  name: string,
  fields: Partial<Pick<Scheduler, 'deadlineMs' | 'maxCandidates'>> = {},
): TestScheduler {
  const scheduler: TestScheduler = {
    name,
    deadlineMs: 250,
    maxCandidates: 1_000,
    ...fields,
    questions: [],
    reply: (question) => answerTo(question, () => ({ score: 50 })),
    async ask(text) {
      const question = JSON.parse(text) as Question
      scheduler.questions.push(question)
      const reply = scheduler.reply(question)
      if (reply === 'hang') return new Promise<never>(() => {})
      return typeof reply === 'string' ? { kind: 'text', text: reply } : reply
    },
    async close() {},
  }
  return scheduler
}
