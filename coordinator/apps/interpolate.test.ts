// biome-ignore-all lint/suspicious/noTemplateCurlyInString: Compose files have variables of that form
import { describe, expect, it } from 'vitest'
import { accept, acceptOne, main, refuseOne } from '../../test/builders/app-files.ts'

describe('interpolation and environment', () => {
  it('replaces variables from the environment, then .env, then defaults', async () => {
    const spec = await acceptOne(
      'environment:\n  A: ${A}\n  B: ${B:-b}\n  C: ${C-c}\n  D: ${D:-${A}-x}\n  E: ${A:+set}\n  F: $$HOME',
      {
        environment: { A: 'one', C: '' },
        files: { '.env': 'A=ignored\nB=from-env-file\n' },
      },
    )
    expect(main(spec).environment).toEqual({ A: 'one', B: 'from-env-file', C: '', D: 'one-x', E: 'set', F: '$HOME' })
  })

  it('says which required variable is missing and where', async () => {
    expect(await refuseOne('environment:\n  P: ${PASSWORD:?give one}')).toMatchObject({
      at: '5:10',
      message: 'the variable PASSWORD is required: give one',
    })
  })

  it('warns of a variable that is not set', async () => {
    const { warnings } = await accept('services: {web: {image: "a:${TAG}1"}}')
    expect(warnings).toContain('the variable TAG is not set; it counts as empty')
  })

  it('casts what interpolation gives to the type that is wanted', async () => {
    const spec = await acceptOne('deploy: {replicas: "${N:-3}"}\nread_only: ${RO:-true}\nx-rubato:\n  scale:\n    max: ${MAX:-7}')
    expect([spec.replicas, main(spec).readOnlyRootfs, spec.scale?.max]).toEqual([3, true, 7])
  })

  it('takes env files in order, then environment; a value-less name comes from outside', async () => {
    const spec = await acceptOne(
      'env_file:\n  - a.env\n  - {path: b.env, required: false}\n  - {path: none.env, required: false}\nenvironment: [OUT, X=3]',
      {
        environment: { OUT: 'side' },
        files: { 'a.env': 'X=1\nY="two words" # not this\nZ=\'$$literal\'\n', 'b.env': 'Y=2\n' },
      },
    )
    expect(main(spec).environment).toEqual({ X: '3', Y: '2', Z: '$$literal', OUT: 'side' })
  })

  it('a missing env_file is a fault that says where it was looked for', async () => {
    expect(await refuseOne('env_file: prod.env')).toMatchObject({
      message: 'the env_file "prod.env" cannot be read',
      hint: expect.stringContaining('/srv/shop/prod.env'),
    })
  })

  it('keeps numbers of the environment as they are written', async () => {
    expect(main(await acceptOne('environment: {V: 1.10, OCT: 0755, T: true, N: 1e3}')).environment).toEqual({
      V: '1.10',
      OCT: '0755',
      T: 'true',
      N: '1e3',
    })
  })
})
