import { describe, expect, it } from 'vitest'
import { MEASURES } from '../series.ts'
import { FIGURES, figureOf, labelsOf, seriesBehind, type SubjectKind } from './figure-names.ts'

const SUBJECTS: Readonly<Record<SubjectKind, string>> = {
  service: 'service shop/web',
  node: 'node n-1',
  pool: 'pool small',
  cluster: 'cluster',
}

/** As Prometheus reads it. */
function parsed(labels: string): Record<string, string> {
  return Object.fromEntries(
    [...labels.matchAll(/(\w+)="((?:[^"\\\n]|\\["\\n])*)"/g)].map(([, name, value = '']) => [
      name,
      value.replace(/\\(.)/g, (_, letter: string) => (letter === 'n' ? '\n' : letter)),
    ]),
  )
}

describe('names of figures', () => {
  it('every series that has one is found again behind it, and no other of its kind of subject', () => {
    let count = 0
    for (const [kind, subject] of Object.entries(SUBJECTS))
      for (const measure of MEASURES) {
        const figure = figureOf({ subject, measure })
        expect(figure).toBe(FIGURES[kind as SubjectKind][measure] ?? null)
        if (figure === null) continue
        count += 1
        const behind = seriesBehind({ __name__: figure.name, ...parsed(labelsOf(subject, 'c1')) })
        expect(behind.filter((id) => id.subject === subject)).toEqual([{ subject, measure }])
      }
    expect(count).toBeGreaterThan(30)
  })

  it('no two measures of a kind share a name, and counters end in _total as is the custom', () => {
    for (const measures of Object.values(FIGURES)) {
      const figures = Object.values(measures)
      expect(new Set(figures.map(({ name }) => name)).size).toBe(figures.length)
      for (const { name, kind } of figures) expect(name.endsWith('_total')).toBe(kind === 'counter')
    }
  })

  it('labels hold any id, and cannot be broken out of', () => {
    for (const id of ['a"b', 'a\\', 'a\nb', '"} or vector(1) #', 'ü', 'a,b="c"']) {
      expect(parsed(labelsOf(`node ${id}`, id))).toEqual({ rubato_cluster: id, node: id })
      expect(labelsOf(`node ${id}`, 'c')).not.toContain('\n')
    }
  })

  it('what is not ours is nothing', () => {
    expect(seriesBehind({ __name__: 'up', job: 'rubato' })).toEqual([])
    expect(seriesBehind({ __name__: 'rubato_node_cpu_cores' })).toEqual([])
    expect(seriesBehind({})).toEqual([])
    expect(figureOf({ subject: 'constructor x', measure: 'load' })).toBeNull()
  })
})
