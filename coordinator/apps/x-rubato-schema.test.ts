import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { xRubatoJsonSchema } from './x-rubato-schema.ts'

it('the published JSON schema of x-rubato is the one that files are checked with', () => {
  const published = JSON.parse(readFileSync(new URL('./x-rubato.schema.json', import.meta.url), 'utf8')) as unknown
  expect(published).toEqual(JSON.parse(JSON.stringify(xRubatoJsonSchema())))
})
