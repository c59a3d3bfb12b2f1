import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { diskFiles } from './disk-files.ts'

it('files are whole, private, listed in order, and absent ones are no error', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'rb-files-'))
  try {
    const files = diskFiles()
    const path = join(dir, 'a', 'b.json')
    expect(await files.read(path)).toBeNull()
    expect(await files.list(join(dir, 'a'))).toEqual([])
    await files.write(path, 'one')
    await files.write(path, 'two ü')
    await files.write(join(dir, 'a', 'a.json'), '', 0o644)
    expect(await files.read(path)).toBe('two ü')
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(statSync(join(dir, 'a', 'a.json')).mode & 0o777).toBe(0o644)
    expect(await files.list(join(dir, 'a'))).toEqual(['a.json', 'b.json'])
    await files.remove(path)
    await files.remove(path)
    expect(await files.list(join(dir, 'a'))).toEqual(['a.json'])
    // A name that cannot be replaced leaves no half file behind.
    await expect(files.write(join(dir, 'a'), 'x')).rejects.toThrow()
    writeFileSync(join(dir, 'f'), '')
    await expect(files.write(join(dir, 'f', 'g'), 'x')).rejects.toThrow()
    expect(readdirSync(dir).sort()).toEqual(['a', 'f'])
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

it('what a killed process left half-written goes with the next write of that file, or with the file; that of others stays', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'rb-files-'))
  try {
    const files = diskFiles()
    for (const name of ['.a.json.1.0.part', '.b.json.1.7.part', '.b.json.old.1.0.part', `.b.json.${process.pid}.9.part`])
      writeFileSync(join(directory, name), 'hal')
    await files.write(join(directory, 'a.json'), 'whole')
    expect(readdirSync(directory).sort()).toEqual(
      [`.b.json.${process.pid}.9.part`, '.b.json.1.7.part', '.b.json.old.1.0.part', 'a.json'].sort(),
    )
    await files.remove(join(directory, 'b.json'))
    expect(readdirSync(directory).sort()).toEqual([`.b.json.${process.pid}.9.part`, '.b.json.old.1.0.part', 'a.json'].sort())
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})
