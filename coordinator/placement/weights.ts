/** The weights of placement as settings: what each cost counts beside the others (design §7). */
import { numberSetting } from '../../shared/setting-kinds.ts'
import { DEFAULT_WEIGHTS, type ScoreWeights } from './model.ts'

const weight = (doc: string, name: keyof ScoreWeights) =>
  numberSetting({ doc: `Weight of ${doc}.`, default: DEFAULT_WEIGHTS[name] }, { min: 0, max: 1000 })

export const WEIGHT_SETTINGS = {
  'placement.weights.service': weight('each instance of the same service on the node (spread)', 'service'),
  'placement.weights.use': weight('the reserved share of the node, 0–1', 'use'),
  'placement.weights.measuredUse': weight('the measured use of the node, 0–1', 'measuredUse'),
  'placement.weights.affinity': weight('each preferred neighbour that is absent and each unwanted one that is there', 'affinity'),
  'placement.weights.imageAbsent': weight('each image that the node does not have', 'imageAbsent'),
  'placement.weights.spreadOver': weight(
    'each instance of the service in the same zone (half as much for each further attribute)',
    'spreadOver',
  ),
} as const

export function weightsOf(values: { readonly [Name in keyof typeof WEIGHT_SETTINGS]: number }): ScoreWeights {
  return Object.freeze({
    service: values['placement.weights.service'],
    use: values['placement.weights.use'],
    measuredUse: values['placement.weights.measuredUse'],
    affinity: values['placement.weights.affinity'],
    imageAbsent: values['placement.weights.imageAbsent'],
    spreadOver: values['placement.weights.spreadOver'],
  })
}
