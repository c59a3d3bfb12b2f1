/** App files as texts, read as `up` would: what is accepted, with its warnings, or refused, with its faults. */
import { expect } from 'vitest'
import { appSpecSchema } from '../../coordinator/apps/app-spec-schema.ts'
import { checkAppSpec } from '../../coordinator/apps/check-app-spec.ts'
import { readApp, type ReadAppInput, type ReadAppResult } from '../../coordinator/apps/read-app.ts'
import type { AppSpec, ServiceSpec } from '../../shared/model/app.ts'

export interface AppFileSetup extends Partial<Omit<ReadAppInput, 'text' | 'readFile'>> {
  readonly files?: Record<string, string>
}

/** Reads the text as `/srv/shop/compose.yaml`; other files are those of the setup. */
export function read(text: string, setup: AppFileSetup = {}): Promise<ReadAppResult> {
  const { files = {}, ...rest } = setup
  return readApp({
    text,
    fileName: '/srv/shop/compose.yaml',
    environment: {},
    readFile: async (path) => (Object.hasOwn(files, path) ? (files[path] ?? null) : null),
    ...rest,
  })
}

/** Fails the test unless it is accepted, and its spec passes the API’s own checks. */
export async function accept(text: string, setup: AppFileSetup = {}): Promise<{ app: AppSpec; warnings: readonly string[] }> {
  const result = await read(text, setup)
  if (result.kind === 'refused')
    throw new Error(result.faults.map((fault) => `${fault.line}:${fault.column} ${fault.path} ${fault.message}`).join('\n'))
  // Whatever is read must pass the API's own checks.
  const parsed = appSpecSchema.safeParse(result.app)
  expect(parsed.error?.issues ?? []).toEqual([])
  const check = checkAppSpec(result.app, setup.policy)
  expect([...check.faults, ...check.forbidden]).toEqual([])
  return { app: result.app, warnings: result.warnings.map((warning) => warning.message) }
}

/** A file with one service `web` that has these keys. */
export async function acceptOne(service: string, setup: AppFileSetup = {}): Promise<ServiceSpec> {
  const { app } = await accept(`services:\n  web:\n    image: web:1\n${indent(service)}`, setup)
  const spec = app.services[0]
  if (spec === undefined) throw new Error('no service')
  return spec
}

/** The main container. */
export function main(spec: ServiceSpec) {
  const container = spec.unit.containers[0]
  if (container === undefined) throw new Error('no container')
  return container
}

/** The faults; fails the test when it is accepted. */
export async function refuse(
  text: string,
  setup: AppFileSetup = {},
): Promise<{ at: string; path: string; message: string; hint: string; file: string }[]> {
  const result = await read(text, setup)
  if (result.kind === 'ok') throw new Error('was accepted')
  return result.faults.map((fault) => ({
    at: `${fault.line}:${fault.column}`,
    path: fault.path,
    message: fault.message,
    hint: fault.hint ?? '',
    file: fault.file ?? '',
  }))
}

/** The one fault of a file with one service `web` that has these keys. */
export async function refuseOne(service: string, setup: AppFileSetup = {}) {
  const faults = await refuse(`services:\n  web:\n    image: web:1\n${indent(service)}`, setup)
  expect(faults).toHaveLength(1)
  return faults[0] ?? { at: '', path: '', message: '', hint: '', file: '' }
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `    ${line}`)
    .join('\n')
}
