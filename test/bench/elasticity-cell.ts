/** One cell of the elasticity bench: a trace at one boot time and seed, under every policy. Runs in a worker or in line. */
import type { ElasticityMetrics } from '../../coordinator/simulate/elasticity-metrics.ts'
import { POLICIES } from '../../coordinator/simulate/policies.ts'
import { hpa } from '../../coordinator/simulate/policies/kubernetes.ts'
import { type RunSetup, runPolicy } from '../../coordinator/simulate/run.ts'
import type { Trace } from '../../coordinator/simulate/trace.ts'
import { type Scale, setupFor } from './elasticity-setup.ts'

export interface CellJob {
  readonly trace: Trace
  readonly bootS: number
  readonly seed: number
  readonly scale: Scale
  /** Only what the ratios need: Rubato and the HPA rule. */
  readonly isBrief: boolean
}

export interface Cell {
  readonly trace: string
  readonly bootS: number
  readonly seed: number
  readonly ours: ElasticityMetrics
  readonly usual: ElasticityMetrics
  readonly matched: ElasticityMetrics
  /** Of the matched HPA, percent. */
  readonly target: number
  /** Every policy, by title. */
  readonly rows: readonly { readonly title: string; readonly metrics: ElasticityMetrics }[]
}

const LEAST_TARGET = 15
const TARGET_STEP = 0.5
const BRIEF: ReadonlySet<string> = new Set(['rubato', 'hpa'])

export function measureCell({ trace, bootS, seed, scale, isBrief }: CellJob): Cell {
  const setup = setupFor(trace, { bootMs: bootS * 1000, seed, scale })
  const measured = new Map<string, ElasticityMetrics>()
  const rows: { title: string; metrics: ElasticityMetrics }[] = []
  for (const policy of POLICIES) {
    if (isBrief && !BRIEF.has(policy.id)) continue
    const { metrics } = runPolicy(policy, setup)
    measured.set(policy.id, metrics)
    rows.push({ title: policy.title, metrics })
  }
  const ours = measured.get('rubato') as ElasticityMetrics
  const usual = measured.get('hpa') as ElasticityMetrics
  const { target, metrics: matched } = matchedHpa(setup, ours.machineHours)
  rows.push({ title: `HPA at ${target} % (our machine-hours)`, metrics: matched })
  return { trace: trace.name, bootS, seed, ours, usual, matched, target, rows }
}

/** The HPA rule at the highest target that still takes at least our machine-hours; of two neighbours the better one for it. */
function matchedHpa(setup: RunSetup, machineHours: number): { readonly target: number; readonly metrics: ElasticityMetrics } {
  const known = new Map<number, ElasticityMetrics>()
  const at = (target: number): ElasticityMetrics => {
    const metrics = known.get(target) ?? runPolicy(hpa(target), setup).metrics
    known.set(target, metrics)
    return metrics
  }
  let low = LEAST_TARGET
  let high = 100
  while (high - low > TARGET_STEP) {
    const middle = Math.round((low + high) / 2 / TARGET_STEP) * TARGET_STEP
    if (middle <= low || middle >= high) break
    if (at(middle).machineHours >= machineHours) low = middle
    else high = middle
  }
  const target = at(low).underTime <= at(high).underTime ? low : high
  return { target, metrics: at(target) }
}
