import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { joinAdvice } from './commands-access.ts'

const pem = (der: Buffer) =>
  `-----BEGIN CERTIFICATE-----\n${der.toString('base64').replaceAll(/(.{64})/g, '$1\n')}\n-----END CERTIFICATE-----\n`
const genuine = Buffer.alloc(300, 'genuine')
const thief = Buffer.alloc(290, 'thief')

describe('the commands that let a host join', () => {
  let dir: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'rb-advice-'))
  })
  afterEach(() => rmSync(dir, { recursive: true, force: true }))

  /** Runs them with a curl that serves `served` as the authority; returns what the second one was told to trust. */
  const trusted = (served: string): string | null => {
    writeFileSync(join(dir, 'served'), served)
    writeFileSync(
      join(dir, 'curl'),
      `#!/bin/sh
case "$*" in
  *--cacert*) cp rubato-ca.pem trusted ;;
  *' -o '*) while [ "$1" != -o ]; do shift; done; cp served "$2" ;;
  *) cat served ;;
esac
`,
      { mode: 0o755 },
    )
    const digest = createHash('sha256').update(genuine).digest('hex')
    const lines = joinAdvice(`rbtj_j_s_${digest}`, 'https://10.0.0.1:7600', 0).split('\n')
    const script = lines.slice(
      lines.findIndex((line) => line.includes('/v1/ca')),
      lines.findIndex((line) => line.startsWith('Where')),
    )
    spawnSync('sh', ['-c', script.join('\n')], { cwd: dir, env: { PATH: `${dir}:${process.env.PATH ?? ''}` } })
    return existsSync(join(dir, 'trusted')) ? readFileSync(join(dir, 'trusted'), 'utf8') : null
  }

  it('trust the authority that the token names, and none that stands behind it', () => {
    const body = (text: string | null) => Buffer.from((text ?? '').replaceAll(/-----.*\n/g, ''), 'base64')
    expect(body(trusted(pem(genuine)))).toEqual(genuine)
    for (const served of [
      `${pem(genuine)}%\n${pem(thief)}`,
      `${pem(genuine)}${pem(thief)}`,
      pem(genuine).replace('-----END CERTIFICATE', `%\n-----END X-----\n${pem(thief)}-----END CERTIFICATE`),
      `${pem(thief)}${pem(genuine)}`,
      pem(thief),
    ]) {
      rmSync(join(dir, 'trusted'), { force: true })
      const found = trusted(served)
      if (found !== null) expect(body(found)).toEqual(genuine)
      expect(found ?? '').not.toContain(thief.toString('base64').slice(0, 40))
    }
  })
})
