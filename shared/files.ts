/** Files as a dependency: small state files, written whole. */
export interface Files {
  /** The file's text, or null when it does not exist. */
  read(path: string): Promise<string | null>
  /** Replaces the file atomically (write aside, fsync, rename), with permission bits `mode` (default 0600). */
  write(path: string, text: string, mode?: number): Promise<void>
  /** Removes the file; absent is fine. */
  remove(path: string): Promise<void>
  /** Names in a directory, sorted; empty when it does not exist. */
  list(directory: string): Promise<readonly string[]>
}
