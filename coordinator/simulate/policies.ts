/** The policies that can be compared, by the names that `--policy` takes. */
import { InputError } from '../../shared/errors.ts'
import { nearest } from '../../shared/nearest.ts'
import type { Policy } from './policy.ts'
import { fixedMean, fixedPeak } from './policies/fixed.ts'
import { hpa } from './policies/kubernetes.ts'
import { micado } from './policies/micado.ts'
import { adapt, hist, react, reg } from './policies/published.ts'
import { rubato, rubatoReactive } from './policies/rubato.ts'

export const POLICIES: readonly Policy[] = [
  rubato,
  rubatoReactive,
  hpa(70),
  micado,
  react,
  adapt,
  hist,
  reg,
  fixedPeak,
  fixedMean,
]

/** Compared when none is named. */
export const DEFAULT_POLICIES = 'rubato,rubato-reactive,hpa,fixed'

/** `all`, or names separated by commas; `hpa:60` is the HPA rule at that target. Throws InputError that names what there is. */
export function policiesNamed(text: string): readonly Policy[] {
  if (text === 'all') return POLICIES
  const ids = POLICIES.map(({ id }) => id)
  return [...new Set(text.split(',').map((name) => name.trim()))].map((name) => {
    const target = /^hpa:(\d{1,2}(?:\.\d+)?|100)$/.exec(name)?.[1]
    if (target !== undefined && Number(target) > 0) return hpa(Number(target), name)
    const policy = POLICIES.find(({ id }) => id === name)
    if (policy !== undefined) return policy
    const meant = nearest(name, ids)
    throw new InputError(`There is no policy "${name}"`, [
      {
        path: '--policy',
        message: meant === null ? `the policies are ${ids.join(', ')}` : `did you mean ${meant}?`,
        hint: 'hpa:60 is the HPA rule at a target of 60 %; "all" is every one',
      },
    ])
  })
}
