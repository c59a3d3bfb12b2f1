/** What the readers of an app file share: the report, the world as far as they may see it, and what the file declares. */
import type { Variables } from './interpolate.ts'
import type { Cursor, Place } from './located.ts'
import type { Report } from './report.ts'

/** What is allowed beyond the safe default. Everything false unless given; no setting of the coordinator gives it yet. */
export interface AppPolicy {
  /** `privileged: true` and capabilities that amount to it. */
  readonly allowPrivileged: boolean
  readonly allowHostNetwork: boolean
  /** Mounts of the engine's socket, of `/` and of the host's own directories. */
  readonly allowHostMounts: boolean
}

export const SAFE_POLICY: AppPolicy = { allowPrivileged: false, allowHostNetwork: false, allowHostMounts: false }

export interface Context {
  readonly report: Report
  readonly app: string
  readonly variables: Variables
  readonly policy: AppPolicy
  readonly runtime: 'docker' | 'process'
  /** Absolute directory of the main file, without a slash at its end; '' when it is not known. */
  readonly directory: string
  /** A path that the file of `place` names, relative to the main file's directory (or absolute). */
  relative(place: Place, path: string): string
  /** Text of a file as `relative` names it, or null when there is none. Never rejects. */
  readFile(path: string): Promise<string | null>
  /** Top-level declarations by name. */
  readonly volumes: ReadonlyMap<string, Cursor>
  readonly configs: ReadonlyMap<string, Cursor>
  readonly secrets: ReadonlyMap<string, Cursor>
  readonly networks: ReadonlyMap<string, Cursor>
}
