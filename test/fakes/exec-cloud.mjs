#!/usr/bin/env node
/**
 * A small cloud behind the exec contract, kept in one JSON file: `node exec-cloud.mjs STATE.json create|delete|list`. Machines
 * are entries only. The file's `fault` is a lever for the next call: `html`, `truncated`, `unknown-state`, `exit:<code>`, `hang`,
 * `flood`, `lost-reply` (does it, then dies without an answer).
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'

const [, , path, verb] = process.argv
const state = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : { machines: [], deleting: [], fault: null }
const input = JSON.parse(readFileSync(0, 'utf8'))
const { fault } = state

const save = () => {
  writeFileSync(`${path}.new`, JSON.stringify({ ...state, fault: null, lastArgv: process.argv.slice(2), lastInput: input }))
  renameSync(`${path}.new`, path)
}
const answer = (value) => {
  save()
  if (fault === 'lost-reply') process.kill(process.pid, 'SIGKILL')
  const text = JSON.stringify(value)
  process.stdout.write(fault === 'truncated' ? text.slice(0, -5) : text)
}
const fail = (code, message, output) => {
  save()
  process.stderr.write(`${message}\n`)
  if (output) process.stdout.write(JSON.stringify(output))
  process.exitCode = code
}
const view = ({ id, name, state: machineState, address, createdAt, tags }) => ({
  id,
  name,
  state: machineState,
  address,
  createdAt,
  tags,
})

if (fault === 'html') {
  save()
  process.stdout.write('<html><body>502 Bad Gateway</body></html>')
} else if (fault === 'hang') {
  save()
  setInterval(() => undefined, 1000)
} else if (fault === 'flood') {
  save()
  process.stdout.write('x'.repeat(12 * 2 ** 20))
} else if (fault?.startsWith('exit:')) {
  const code = Number(fault.slice(5))
  fail(code, `asked to fail, with rbtj_j-abc_secretsecret_plain in the message`, code === 13 ? { retryAfterMs: 1500 } : undefined)
} else if (verb === 'create') {
  let machine = state.machines.find((candidate) => candidate.name === input.name)
  if (!machine) {
    const number = state.machines.length + 1
    machine = { id: `vm-${number}`, name: input.name, state: 'running', address: `10.0.0.${number}`, tags: input.tags }
    machine.createdAt = new Date().toISOString()
    state.machines.push(machine)
  }
  answer({ ...view(machine), ...(fault === 'unknown-state' ? { state: 'MELTING' } : {}) })
} else if (verb === 'delete') {
  const found = state.machines.findIndex((candidate) => candidate.name === input.name)
  if (found < 0) fail(12, `no machine ${input.name}`)
  else {
    state.machines.splice(found, 1)
    answer({})
  }
} else if (verb === 'list') {
  const own = state.machines.filter(({ tags }) => Object.entries(input.tags).every(([key, value]) => tags[key] === value))
  answer({ complete: true, machines: own.map(view).concat(state.extra ?? []) })
} else fail(2, `unknown verb ${verb}`)
