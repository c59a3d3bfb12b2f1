/**
 * The command of an `exec` provider in tests: `node exec-hosts.mjs SOCKET ACCOUNT create|delete|list`. It carries the request to the test
 * process, which holds the hosts, and its answer back: `{exit, output, message}`.
 */
import { request } from 'node:http'

const [socketPath, account, verb] = process.argv.slice(2)
let input = ''
for await (const chunk of process.stdin) input += chunk

const call = request(
  {
    socketPath,
    method: 'POST',
    path: `/${verb}`,
    headers: { 'content-length': Buffer.byteLength(input), 'x-account': account, 'x-pid': process.pid },
  },
  async (answer) => {
    let text = ''
    for await (const chunk of answer) text += chunk
    const { exit, output, message } = JSON.parse(text)
    if (message) process.stderr.write(`${message}\n`)
    process.stdout.write(`${typeof output === 'string' ? output : JSON.stringify(output)}\n`)
    process.exitCode = exit
  },
)
call.on('error', (error) => {
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 13
})
call.end(input)
