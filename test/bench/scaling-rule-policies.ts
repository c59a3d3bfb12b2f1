/** Scaling rules to compare: ours, ours without some of its signals, and those of others. */
import { planReplicas, type ReplicasInput } from '../../coordinator/scaling/plan-replicas.ts'
import type { Rule, RuleView } from './scaling-rule-model.ts'

/** What coordinator/scaling does, with only the signals that are named. */
export function ours(signals: { readonly sustained: boolean; readonly arrivals: boolean; readonly growth: boolean }): Rule {
  return (view) => {
    const load = {
      ...view.load,
      ...(signals.sustained ? {} : { sustainedPercent: null }),
      ...(signals.arrivals ? {} : { arrivalPercent: null }),
      ...(signals.growth ? {} : { growthPercentPerS: 0 }),
    }
    return planReplicas(inputOf({ ...view, load })).decision.wish
  }
}

function inputOf(view: RuleView): ReplicasInput {
  return {
    serviceId: 'shop/web',
    rules: view.rules,
    boundsNote: null,
    forecast: null,
    wanted: view.wanted,
    pinned: null,
    excluded: view.excluded,
    ready: view.ready,
    load: view.load,
    leadMs: view.launchMs,
    lastStep: view.lastStep,
    rolloutUnhealthy: false,
    memoryLed: false,
    meanBeforePercent: null,
  }
}

const HPA_SYNC_S = 15
const HPA_TARGET = 70
const HPA_TOLERANCE = 0.1
const HPA_DOWN_WINDOW_S = 300

/**
 * Kubernetes' Horizontal Pod Autoscaler with its defaults: every 15 s ceil(n × mean ÷ 70 %), tolerance 10 %, pods that are not ready
 * count as idle when it goes up, at most twice as many or four more per 15 s, and down to the largest wish of 300 s
 * (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale, "Algorithm details").
 */
export function hpa(): Rule {
  let wishes: { atS: number; wish: number }[] = []
  return (view) => {
    const { atS, wanted, loads } = view
    if (atS % HPA_SYNC_S !== 0 || loads.length === 0) return wanted
    const sum = loads.reduce((total, load) => total + load, 0)
    let wish = wanted
    const ratio = sum / loads.length / HPA_TARGET
    if (Math.abs(ratio - 1) > HPA_TOLERANCE) {
      const counted = ratio > 1 ? wanted : loads.length
      const again = sum / counted / HPA_TARGET
      const flips = ratio > 1 !== again > 1
      if (!flips && Math.abs(again - 1) > HPA_TOLERANCE) wish = Math.max(1, Math.ceil(again * counted))
    }
    wishes = [...wishes.filter((each) => each.atS > atS - HPA_DOWN_WINDOW_S), { atS, wish }]
    if (wish > wanted) return Math.min(wish, Math.max(2 * wanted, wanted + 4))
    return Math.min(wanted, Math.max(...wishes.map((each) => each.wish)))
  }
}

const MICADO_EVERY_S = 30

/** One more above 60 %, one fewer below 20 %, as in the first paper that this product follows; one step per 30 s. */
export function oneByOne(): Rule {
  return ({ atS, wanted, load, ready }) => {
    if (atS % MICADO_EVERY_S !== 0 || load.meanPercent === null || ready < wanted) return wanted
    if (load.meanPercent > 60) return wanted + 1
    return load.meanPercent < 20 ? Math.max(1, wanted - 1) : wanted
  }
}
